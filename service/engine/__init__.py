"""The engine process: weights from the blob store, one program that answers with them, a bounded queue in front."""
