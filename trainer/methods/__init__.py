"""The training methods, one file each. A new method is its file and one entry in `METHODS`."""

from trainer.methods.supervised import SupervisedMethod

METHODS = (SupervisedMethod,)

# The discriminated union of all methods; with several members: `Annotated[A | B, Field(discriminator="type")]`.
Method = SupervisedMethod
