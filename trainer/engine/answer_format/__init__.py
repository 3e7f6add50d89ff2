"""What an answer says: its text, thoughts and calls apart, in the form that the base's chat template writes.

`AnswerForm.detect` finds the form, `AnswerReader` reads answers of token ids, whole or as they are drawn. A new form of
calls is a file in `forms/` and its line in `forms/__init__.py`.
"""
