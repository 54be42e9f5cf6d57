"""Folders of pictures: found, decoded, stored or streamed."""
