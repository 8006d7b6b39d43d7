import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.util.Properties;

/** JDBC to a port of this machine: a batch, and a result that is fetched in pieces. */
public class Postgres {
    public static void main(String[] args) throws Exception {
        var settings = new Properties();
        settings.setProperty("user", "alice");
        settings.setProperty("sslmode", "disable");
        var url = "jdbc:postgresql://127.0.0.1:" + args[0] + "/postgres";
        try (Connection connection = DriverManager.getConnection(url, settings)) {
            connection.setAutoCommit(false);
            try (var statement = connection.createStatement()) {
                statement.execute("create table t (a int, b text)");
            }
            try (PreparedStatement insert = connection.prepareStatement("insert into t values (?, ?)")) {
                for (int row = 0; row < 10; row++) {
                    insert.setInt(1, row);
                    insert.setString(2, "row " + row);
                    insert.addBatch();
                }
                insert.executeBatch();
            }
            int rows = 0;
            try (PreparedStatement select = connection.prepareStatement("select a, b from t where a > ?")) {
                select.setInt(1, 1);
                select.setFetchSize(3);
                try (ResultSet result = select.executeQuery()) {
                    while (result.next()) {
                        rows++;
                    }
                }
            }
            connection.commit();
            System.out.println(rows == 8 ? "done" : "rows: " + rows);
        }
    }
}
