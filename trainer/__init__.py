"""The common trainer: a program that reads a folder and writes a folder. It knows no HTTP, SQL, Redis or S3."""
