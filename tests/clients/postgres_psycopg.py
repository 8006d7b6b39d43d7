"""psycopg to the server that the environment names: parameters in text and binary form, a pipeline, a cursor, COPY."""

import psycopg

with psycopg.connect(autocommit=True, prepare_threshold=None) as connection:
    with connection.transaction():
        connection.execute("create table t (a int, b text, c bytea)")
        for row in [(7, "seven", b"\x00\x01\xff"), (None, "it's", b"\x01")]:
            connection.execute("insert into t values (%t, %t, %b)", row)
    assert connection.execute("select b from t where a = %t", [7]).fetchall() == [("seven",)]
    with connection.pipeline():
        first = connection.execute("select %t::text", ["first"])
        second = connection.execute("select %t::text", ["second"])
    assert (first.fetchone(), second.fetchone()) == (("first",), ("second",))
    with connection.transaction(), connection.cursor("c") as cursor:
        cursor.execute("select generate_series(1, 10)")
        assert len(cursor.fetchmany(4)) == 4
    with connection.cursor() as cursor:
        with cursor.copy("copy t (a) from stdin") as copy:
            for number in range(1000):
                copy.write_row([number])
        with cursor.copy("copy t (a) to stdout") as copy:
            assert len(list(copy.rows())) == 1002
print("done")
