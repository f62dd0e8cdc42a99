"""Tests of the pure protocols; they open no socket. A package, so that a file may be named like one of another folder."""
