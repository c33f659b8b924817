/**
 * Tables whose rows were read by a description from ahead of the stream: their table maps have no names (`binlog_row_metadata` other than FULL), so it is the
 * server's present one. Whether the rows fit it is known once the stream has come to where the binlog ended then. Marks are those of `fileMark`.
 */
export class DescribedAhead {
  /** By table id, where the binlog ended when it was described. */
  readonly #ends: Map<string, bigint>
  #ids: readonly string[] | null = null

  constructor(ends: Iterable<readonly [id: string, end: bigint]> = []) {
    this.#ends = new Map(ends)
  }

  /** In order. */
  get ids(): readonly string[] {
    this.#ids ??= [...this.#ends.keys()].sort()
    return this.#ids
  }

  /** Rows of the table are read by a description that was made before the binlog ended there. */
  note(id: string, end: bigint): void {
    if ((this.#ends.get(id) ?? -1n) >= end) return
    this.#ends.set(id, end)
    this.#ids = null
  }

  /** Rows that come are described anew, and those before are gone. */
  forget(id: string): void {
    if (this.#ends.delete(id)) this.#ids = null
  }

  /** Whether a statement that ends at this mark was in the table's description already, by which rows before it were read. */
  has(id: string, mark: bigint): boolean {
    return (this.#ends.get(id) ?? -1n) >= mark
  }

  /** The stream has all up to this mark. */
  pass(mark: bigint): void {
    for (const [id, end] of this.#ends) if (end <= mark) this.forget(id)
  }
}
