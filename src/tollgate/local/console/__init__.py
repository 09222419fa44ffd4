"""The console: a web page that shows the flow living, served by one supervised process.

In: the topics `decisions` and `dead-letters`, the ledger, the supervisor's state. Out: one page, a JSON document a
second (Server-Sent Events), and the details of a decision. It reads only, and what is away it shows as away.
"""
