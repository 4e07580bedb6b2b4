-- One PostgreSQL server, a database for each index. Run once, by the superuser that owns both.
CREATE DATABASE prefect;
CREATE DATABASE mlflow;
