"""Connections over any byte stream: multistream-select, Noise and Yamux, and the streams they yield."""
