"""Controllers: what turns the objects somebody wrote into the objects that follow from them.

Each controller is a pure function from documents to actions (`deployment.py`, `sets.py`, `job.py`, `cron_job.py`,
`service.py`, `endpoints.py`, `account.py`); `cluster.py` keeps the documents by watching the API, `work.py`
calls the function for what changed and carries its actions out.
"""
