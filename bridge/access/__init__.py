"""Who may call: lists of peers, invitations and tickets, the file that holds them, and the decision.

`lists`, `secret`, `ticket`, `invitations`, `records`, `contact` and `policy` are pure; `store` and `sources` read and
write files. Nothing here knows a connection or a stream: whoever accepts calls asks `policy.Access`.
"""
