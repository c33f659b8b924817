// Runs statements through a Cassandra of its own and says what its own CommitLogReader finds in the segments that they left in cdc_raw: run by commit-log.ts.
// Arguments: a file of statements, one a line (`---` starts a new segment, `1000 x ` before one runs it so often, with each number for %d); the folder for
// copies of segments, schema.jsonl and <segment>.jsonl; whether these last are written.
import java.io.PrintStream;
import java.lang.reflect.Method;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.cassandra.config.DatabaseDescriptor;
import org.apache.cassandra.cql3.QueryProcessor;
import org.apache.cassandra.cql3.UntypedResultSet;
import org.apache.cassandra.db.ClusteringPrefix;
import org.apache.cassandra.db.ConsistencyLevel;
import org.apache.cassandra.db.DeletionTime;
import org.apache.cassandra.db.LivenessInfo;
import org.apache.cassandra.db.Mutation;
import org.apache.cassandra.db.commitlog.CommitLog;
import org.apache.cassandra.db.commitlog.CommitLogDescriptor;
import org.apache.cassandra.db.commitlog.CommitLogReadHandler;
import org.apache.cassandra.db.commitlog.CommitLogReader;
import org.apache.cassandra.db.partitions.PartitionUpdate;
import org.apache.cassandra.db.rows.Cell;
import org.apache.cassandra.db.rows.ColumnData;
import org.apache.cassandra.db.rows.ComplexColumnData;
import org.apache.cassandra.db.rows.RangeTombstoneMarker;
import org.apache.cassandra.db.rows.Row;
import org.apache.cassandra.db.rows.Unfiltered;
import org.apache.cassandra.db.rows.UnfilteredRowIterator;
import org.apache.cassandra.schema.TableMetadata;
import org.apache.cassandra.service.CassandraDaemon;
import org.apache.cassandra.service.StorageService;
import org.apache.cassandra.utils.ByteBufferUtil;

public class CommitLogLab {
  private static final List<String> failures = new ArrayList<>();
  private static final Pattern REPEATED = Pattern.compile("(\\d+) x (.*)");

  // its threads keep the process alive
  public static void main(String[] args) {
    int status = 0;
    try {
      run(args);
    } catch (Throwable error) {
      error.printStackTrace(System.out);
      status = 1;
    }
    System.out.flush();
    Runtime.getRuntime().halt(status);
  }

  private static void run(String[] args) throws Exception {
    new CassandraDaemon(true).activate();
    // no clients, but counters need a replica that is ready for them
    StorageService.instance.setRpcReady(true);
    Path out = Path.of(args[1]);
    for (String line : Files.readAllLines(Path.of(args[0]))) {
      if (line.equals("---")) CommitLog.instance.forceRecycleAllSegments();
      else {
        Matcher repeated = REPEATED.matcher(line);
        if (!repeated.matches()) process(line);
        else for (int i = 0; i < Integer.parseInt(repeated.group(1)); i++) process(repeated.group(2).replace("%d", "" + i));
      }
    }
    if (!failures.isEmpty()) throw new IllegalStateException(String.join("\n", failures));
    CommitLog.instance.sync(true);
    CommitLog.instance.forceRecycleAllSegments();
    schema(out);
    try (var files = Files.list(Path.of(DatabaseDescriptor.getCDCLogLocation().toString()))) {
      for (Path index : files.filter(file -> file.toString().endsWith("_cdc.idx")).toList()) {
        while (!Files.readString(index).contains("COMPLETED")) CommitLog.instance.sync(true);
        Path segment = index.resolveSibling(index.getFileName().toString().replace("_cdc.idx", ".log"));
        Path copy = out.resolve(segment.getFileName().toString());
        Files.copy(index, out.resolve(index.getFileName().toString()));
        Files.copy(segment, copy);
        if (args[2].equals("true")) try (PrintStream lines = new PrintStream(copy.toString().replace(".log", ".jsonl"))) {
          read(copy, new Lines(lines));
        }
      }
    }
  }

  // takes java.io.File in 4.0, and a File of Cassandra's own later
  private static void read(Path segment, Lines lines) throws Exception {
    for (Method method : CommitLogReader.class.getMethods()) {
      Class<?>[] takes = method.getParameterTypes();
      if (!method.getName().equals("readCommitLogSegment") || takes.length != 3 || takes[2] != boolean.class) continue;
      method.invoke(new CommitLogReader(), lines, takes[1].getConstructor(String.class).newInstance(segment.toString()), false);
      return;
    }
    throw new IllegalStateException("the reader is another one");
  }

  private static void process(String statement) {
    try {
      QueryProcessor.process(statement, ConsistencyLevel.ONE);
    } catch (RuntimeException error) {
      failures.add(statement + ": " + error);
    }
  }

  private static void schema(Path out) throws Exception {
    try (PrintStream lines = new PrintStream(out.resolve("schema.jsonl").toString())) {
      for (String table : List.of("tables", "views", "columns", "dropped_columns", "types")) {
        String columns = table.equals("tables") ? "keyspace_name, table_name, id" : table.equals("views") ? "keyspace_name, view_name, id" : "*";
        UntypedResultSet rows = QueryProcessor.executeInternal("SELECT JSON " + columns + " FROM system_schema." + table);
        for (UntypedResultSet.Row row : rows) lines.println("[\"" + table + "\"," + row.getString("[json]") + "]");
      }
      // these keyspaces are not in system_schema
      for (TableMetadata table : local()) {
        lines.println("[\"tables\",{\"keyspace_name\":\"" + table.keyspace + "\",\"table_name\":\"" + table.name + "\",\"id\":\"" + table.id.asUUID() + "\"}]");
        table.columns().forEach(column -> lines.println("[\"columns\",{\"keyspace_name\":\"" + table.keyspace + "\",\"table_name\":\"" + table.name
          + "\",\"column_name\":\"" + column.name + "\",\"kind\":\"" + column.kind.toString().toLowerCase() + "\",\"position\":" + column.position()
          + ",\"clustering_order\":\"" + column.clusteringOrder().toString().toLowerCase() + "\",\"type\":\"" + column.type.asCQL3Type().toString().replace("\"", "\\\"") + "\"}]"));
      }
    }
  }

  private static List<TableMetadata> local() {
    List<TableMetadata> all = new ArrayList<>();
    for (String keyspace : List.of("system", "system_schema"))
      org.apache.cassandra.schema.Schema.instance.getKeyspaceMetadata(keyspace).tables.forEach(all::add);
    return all;
  }

  private static final class Lines implements CommitLogReadHandler {
    private final PrintStream out;

    Lines(PrintStream out) {
      this.out = out;
    }

    public boolean shouldSkipSegmentOnError(CommitLogReadException error) {
      throw new IllegalStateException(error);
    }

    public void handleUnrecoverableError(CommitLogReadException error) {
      throw new IllegalStateException(error);
    }

    public void handleMutation(Mutation mutation, int size, int position, CommitLogDescriptor descriptor) {
      List<String> updates = new ArrayList<>();
      for (PartitionUpdate update : mutation.getPartitionUpdates()) updates.add(update(update));
      out.println("{\"position\":" + position + ",\"updates\":" + updates + "}");
    }

    private static String update(PartitionUpdate update) {
      List<String> rows = new ArrayList<>();
      List<String> ranges = new ArrayList<>();
      UnfilteredRowIterator iterator = update.unfilteredIterator();
      String open = null;
      while (iterator.hasNext()) {
        Unfiltered next = iterator.next();
        if (next.isRow()) {
          rows.add(row((Row) next));
          continue;
        }
        RangeTombstoneMarker marker = (RangeTombstoneMarker) next;
        if (marker.isClose(false)) {
          ranges.add("[" + open + "," + values(marker.clustering()) + "," + marker.closeIsInclusive(false) + "," + deletion(marker.closeDeletionTime(false)) + "]");
        }
        open = marker.isOpen(false) ? values(marker.clustering()) + "," + marker.openIsInclusive(false) : null;
      }
      Row statics = iterator.staticRow();
      return "{\"table\":\"" + update.metadata().id.asUUID() + "\",\"key\":" + hex(update.partitionKey().getKey()) + ",\"deletion\":" + deletion(update.partitionLevelDeletion())
        + ",\"static\":" + (statics.isEmpty() ? "null" : row(statics)) + ",\"rows\":" + rows + ",\"ranges\":" + ranges + "}";
    }

    private static String row(Row row) {
      List<String> cells = new ArrayList<>();
      List<String> complex = new ArrayList<>();
      for (ColumnData data : row) {
        if (data instanceof ComplexColumnData) {
          ComplexColumnData column = (ComplexColumnData) data;
          if (!column.complexDeletion().isLive()) complex.add("[\"" + column.column().name + "\"," + times(column.complexDeletion()) + "]");
          for (Cell<?> cell : column) cells.add(cell(cell));
        } else cells.add(cell((Cell<?>) data));
      }
      LivenessInfo info = row.primaryKeyLivenessInfo();
      String liveness = info.isEmpty() ? "null" : "[\"" + info.timestamp() + "\"," + info.ttl() + "," + (info.isExpiring() ? info.localExpirationTime() : 0) + "]";
      return "{\"clustering\":" + (row.isStatic() ? "[]" : values(row.clustering())) + ",\"liveness\":" + liveness + ",\"deletion\":" + deletion(row.deletion().time())
        + ",\"cells\":" + cells + ",\"complex\":" + complex + "}";
    }

    private static String cell(Cell<?> cell) {
      String path = cell.path() == null ? "null" : hex(cell.path().get(0));
      return "[\"" + cell.column().name + "\"," + path + ",\"" + cell.timestamp() + "\"," + cell.ttl() + ","
        + (cell.isTombstone() || cell.isExpiring() ? cell.localDeletionTime() : 0) + "," + cell.isTombstone() + "," + hex(cell.buffer()) + "]";
    }

    private static String deletion(DeletionTime time) {
      return time.isLive() ? "null" : "[" + times(time) + "]";
    }

    private static String times(DeletionTime time) {
      return "\"" + time.markedForDeleteAt() + "\"," + time.localDeletionTime();
    }

    private static String values(ClusteringPrefix<?> prefix) {
      List<String> values = new ArrayList<>();
      for (int i = 0; i < prefix.size(); i++) values.add(hex(prefix.bufferAt(i)));
      return values.toString();
    }

    private static String hex(ByteBuffer bytes) {
      return bytes == null ? "null" : "\"" + ByteBufferUtil.bytesToHex(bytes) + "\"";
    }
  }
}
