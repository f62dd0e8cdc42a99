"""TCP sockets that listen and dial from one port, and their simultaneous open."""
