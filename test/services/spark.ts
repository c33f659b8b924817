/** Spark with Iceberg's own runtime: the reader that most lakes have, as a judge of tables that Millrace writes. PySpark comes from the package index, the jars from Maven. */
import { readdirSync } from 'node:fs'
import path from 'node:path'
import { findJava, javaSkipReason, mavenJars } from './maven.ts'
import { type PythonSession, pythonSession, pythonSkipReason, pythonWith } from './python.ts'

const PYSPARK = ['pyspark==3.5.6'] as const
const ICEBERG = '1.12.0'
const JARS = [
  { group: 'org.apache.iceberg', artifact: 'iceberg-spark-runtime-3.5_2.12', version: ICEBERG },
  { group: 'org.xerial', artifact: 'sqlite-jdbc', version: '3.50.3.0' },
] as const
/** What this Spark runs on. */
const OLDEST_JDK = 17
const NEWEST_JDK = 21

/**
 * Every row is a list of texts that are equal when the values are: dates as days, times as microseconds since 1970, so that Python's own limits do not count.
 */
const SCRIPT = `
import os, struct, decimal
spark = None
def start(java_home, jars):
    global spark
    os.environ['JAVA_HOME'] = java_home
    from pyspark.sql import SparkSession
    settings = {
        'spark.driver.extraClassPath': ':'.join(jars), 'spark.ui.enabled': 'false', 'spark.sql.session.timeZone': 'UTC', 'spark.driver.memory': '512m',
        'spark.driver.host': '127.0.0.1', 'spark.driver.bindAddress': '127.0.0.1', 'spark.sql.shuffle.partitions': '1', 'spark.sql.warehouse.dir': '/nonexistent'}
    builder = SparkSession.builder.master('local[1]')
    for name, value in settings.items(): builder = builder.config(name, value)
    spark = builder.getOrCreate()
    return spark.version
def attach(name, db, warehouse):
    prefix = 'spark.sql.catalog.' + name
    for key, value in {'': 'org.apache.iceberg.spark.SparkCatalog', '.catalog-impl': 'org.apache.iceberg.jdbc.JdbcCatalog',
            '.uri': 'jdbc:sqlite:' + db, '.warehouse': warehouse, '.cache-enabled': 'false'}.items():
        spark.conf.set(prefix + key, value)
def text(value):
    if value is None: return None
    if isinstance(value, bool): return 'true' if value else 'false'
    if isinstance(value, (bytes, bytearray)): return '0x' + bytes(value).hex()
    if isinstance(value, float): return '0f' + struct.pack('>d', value).hex() if value == value else 'NaN'
    if isinstance(value, decimal.Decimal):
        # small ones come with zeros of another scale than the type has
        digits = format(value, 'f')
        return digits.rstrip('0').rstrip('.') if '.' in digits else digits
    if isinstance(value, dict): return sorted([text(key), text(item)] for key, item in value.items())
    if isinstance(value, (list, tuple)): return [text(item) for item in value]
    return str(value)
def plain(frame):
    from pyspark.sql import functions as f
    columns = []
    for field in frame.schema.fields:
        column, kind = frame['\`' + field.name + '\`'], field.dataType.simpleString()
        if kind == 'date': column = f.unix_date(column)
        if kind == 'timestamp': column = f.unix_micros(column)
        if kind == 'timestamp_ntz': column = f.unix_micros(column.cast('timestamp'))
        columns.append(column.alias(field.name))
    return [text(list(row)) for row in frame.select(columns).collect()]
def rows(table):
    return plain(spark.table(table))
def rows_at(metadata):
    return plain(spark.read.format('iceberg').load(metadata))
def types(table):
    return [[field.name, field.dataType.simpleString()] for field in spark.table(table).schema.fields]
def count_where(table, condition):
    return spark.table(table).where(condition).count()
`

export interface Spark extends AsyncDisposable {
  /** Adds the catalog `name` that lies in the SQLite file `db`. */
  attach(name: string, db: string, warehouse: string): Promise<void>
  rows(table: string): Promise<unknown[][]>
  /** Of a table without a catalog, by its metadata file. */
  rowsAt(metadata: string): Promise<unknown[][]>
  /** Columns with Spark's names of their types. */
  types(table: string): Promise<[name: string, type: string][]>
  countWhere(table: string, condition: string): Promise<number>
}

/** Why Spark cannot run here, or null. */
export function skipReason(): string | null {
  if (findJava(OLDEST_JDK) !== null && findJava(OLDEST_JDK, NEWEST_JDK) === null) return `no JDK ${OLDEST_JDK} to ${NEWEST_JDK}, which Spark 3.5 needs`
  return pythonSkipReason() ?? javaSkipReason(OLDEST_JDK)
}

export async function startSpark(): Promise<Spark> {
  const [python, dir] = await Promise.all([pythonWith(PYSPARK), mavenJars(`iceberg-spark-3.5-${ICEBERG}`, JARS)])
  const jars = readdirSync(dir)
    .filter((file) => file.endsWith('.jar'))
    .map((file) => path.join(dir, file))
  const session: PythonSession = pythonSession(python, SCRIPT)
  await session.call('start', path.dirname(path.dirname(findJava(OLDEST_JDK, NEWEST_JDK)!)), jars)
  return {
    attach: async (...args) => void (await session.call('attach', ...args)),
    rows: async (table) => (await session.call('rows', table)) as unknown[][],
    rowsAt: async (metadata) => (await session.call('rows_at', metadata)) as unknown[][],
    types: async (table) => (await session.call('types', table)) as [string, string][],
    countWhere: async (table, condition) => (await session.call('count_where', table, condition)) as number,
    [Symbol.asyncDispose]: () => session[Symbol.asyncDispose](),
  }
}
