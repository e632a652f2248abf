"""One module per revision, oldest first; the list of them is `caviar.storage.schema.REVISIONS`."""
