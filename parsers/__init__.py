"""Sans-IO protocol parsers: bytes in, events out. They decide nothing."""
