"""boto3 to a port, with credentials that mean nothing: a table, items small and large, an error, batches, a scan."""

import sys

import boto3
from botocore.config import Config

client = boto3.client(
    "dynamodb",
    endpoint_url=f"http://127.0.0.1:{sys.argv[1]}",
    region_name="us-east-2",
    aws_access_key_id="CLIENTSKEY",
    aws_secret_access_key="clients-secret",
    config=Config(retries={"max_attempts": 1}, max_pool_connections=1),
)
assert client.list_tables()["TableNames"] == []
client.create_table(
    TableName="things",
    AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
    KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
    BillingMode="PAY_PER_REQUEST",
)
client.put_item(TableName="things", Item={"id": {"S": "1"}, "n": {"N": "42"}})
assert client.get_item(TableName="things", Key={"id": {"S": "1"}})["Item"]["n"] == {"N": "42"}
big = "b" * 300_000
client.put_item(TableName="things", Item={"id": {"S": "big"}, "v": {"S": big}})
assert client.get_item(TableName="things", Key={"id": {"S": "big"}})["Item"]["v"] == {"S": big}
try:
    client.get_item(TableName="missing", Key={"id": {"S": "1"}})
    raise AssertionError("there is no such table")
except client.exceptions.ResourceNotFoundException:
    pass
for batch in range(40):
    items = [{"PutRequest": {"Item": {"id": {"S": f"{batch}-{n}"}}}} for n in range(25)]
    client.batch_write_item(RequestItems={"things": items})
assert client.scan(TableName="things", Select="COUNT")["Count"] > 0
print("done")
