"""The bytes of one data set or file: which attributes are kept, how they are read and decoded (PS3.5)."""
