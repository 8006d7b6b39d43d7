"""MySQL's own connector to a port of this machine: prepared statements with parameters of every type."""

import datetime
import decimal
import sys

import mysql.connector

connection = mysql.connector.connect(
    host="127.0.0.1", port=int(sys.argv[1]), user="alice", database="test", use_pure=True, ssl_disabled=True,
    charset="utf8mb4", collation="utf8mb4_general_ci",
)
cursor = connection.cursor(prepared=True)
when = datetime.datetime(2026, 11, 21, 9, 5, 3, 250000)
rows = [
    (1, -5, 2.5, "grüße", b"\x00\xff", when, decimal.Decimal("1.25"), None),
    (2, 2**40, -0.25, "it's", b"\x01\xfe", when.date(), decimal.Decimal("-7"), None),
]
for row in rows:
    cursor.execute("select ?, ?, ?, ?, ?, ?, ?, ?", row)
    assert len(cursor.fetchall()) == 1
cursor.close()
connection.close()
print("done")
