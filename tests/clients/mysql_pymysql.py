"""PyMySQL to a port of this machine: parameters, a transaction, rows one by one, several results, bytes."""

import sys

import pymysql
from pymysql.constants import CLIENT

connection = pymysql.connect(
    host="127.0.0.1", port=int(sys.argv[1]), user="alice", database="test", client_flag=CLIENT.MULTI_STATEMENTS
)
with connection:
    with connection.cursor() as cursor:
        cursor.execute("create table t (a int, b text, c blob)")
        for row in [(7, "it's", b"\x00\x01\xff"), (8, None, b"")]:
            cursor.execute("insert into t values (%s, %s, %s)", row)
        connection.commit()
        cursor.execute("select b, c from t where a = %s", [7])
        assert cursor.fetchall() == (("it's", b"\x00\x01\xff"),)
        cursor.execute("select 1; select 2")
        assert cursor.fetchall() == ((1,),) and cursor.nextset() and cursor.fetchall() == ((2,),)
        try:
            cursor.execute("select * from missing")
        except pymysql.err.ProgrammingError as error:
            assert error.args[0] == 1146
    with connection.cursor(pymysql.cursors.SSCursor) as cursor:
        cursor.execute("select seq from seq_1_to_10000")
        assert len(cursor.fetchall()) == 10000
    connection.ping()
print("done")
