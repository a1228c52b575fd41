"""The job store of one host: one SQLite file, and a folder of files for the audio.

store           SqliteJobStore: adds jobs, looks them up, cancels and deletes them
job_folder      the folder's database, files and threads, which all parts of the store share
job_table       the rows of jobs: a transaction's reads and writes of whole jobs
claims          claims queued jobs, and ends their claims
runner          the process that runs the folder's jobs, and the recovery of those whose process has died
runner_lock     the lock file of that process
places          the places of queued jobs
segments        the finished segments of jobs that have not ended
segment_files   the files of segments
result_files    the files of finished jobs
outbox          the webhooks to be delivered
retention       deletes old jobs, and those whose audio takes up too much
database        the SQLite file: its transactions, and its replacement where it was removed or is damaged
schema          the tables, the triggers that count, and the change from earlier versions
"""
