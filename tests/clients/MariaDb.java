import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;

/** JDBC to a port of this machine: statements prepared by the server, a bulk execution, rows fetched in pieces. */
public class MariaDb {
    public static void main(String[] args) throws Exception {
        var url = "jdbc:mariadb://127.0.0.1:" + args[0] + "/test?user=alice&useServerPrepStmts=true&useBulkStmts=true";
        try (Connection connection = DriverManager.getConnection(url)) {
            try (var statement = connection.createStatement()) {
                statement.execute("create table t (a int, b text)");
            }
            try (PreparedStatement insert = connection.prepareStatement("insert into t values (?, ?)")) {
                for (int row = 0; row < 3; row++) {
                    insert.setInt(1, row);
                    insert.setString(2, row == 1 ? null : "row " + row);
                    insert.addBatch();
                }
                insert.executeBatch();
            }
            int rows = 0;
            try (PreparedStatement select = connection.prepareStatement("select a, b from t where a > ?")) {
                select.setFetchSize(1);
                for (int above = 0; above < 2; above++) {
                    select.setInt(1, above);
                    try (ResultSet result = select.executeQuery()) {
                        while (result.next()) {
                            rows++;
                        }
                    }
                }
            }
            System.out.println(rows == 3 ? "done" : "rows: " + rows);
        }
    }
}
