"""Tests of the pure protocols; they open no socket. A package, so that file names of other folders may repeat here."""
