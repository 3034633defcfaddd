"""Where attachments and uploads lie: ``files`` by default, ``s3`` with the extra of that name."""
