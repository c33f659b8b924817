import { stripVTControlCharacters } from 'node:util'
import type { CommandIo } from './command.ts'
import { clip } from './live-view.ts'

/** What is used of a terminal: `process.stderr`. Its size may change at any time. */
export interface Terminal {
  write(text: string): unknown
  readonly columns?: number
  readonly rows?: number
}

/** Lines redrawn in place at the end of a terminal, never more than it shows, with ordinary lines scrolling above them. */
export class LiveScreen {
  readonly #out: Terminal
  #lines: readonly string[] = []
  /** What of them stands in the terminal. */
  #drawn: readonly string[] = []

  constructor(out: Terminal) {
    this.#out = out
  }

  get width(): number {
    return this.#out.columns || 80
  }

  draw(lines: readonly string[]): void {
    this.#redraw(lines, '')
  }

  /** Prints a line above the drawing. */
  log(line: string): void {
    this.#redraw(this.#lines, `${line}\n`)
  }

  /** Leaves the drawing as it is; what follows is printed below. */
  end(): void {
    this.#lines = []
    this.#drawn = []
  }

  /** Row by row, without a moment in which nothing stands there: a screen that is erased as a whole goes into the history of tmux. */
  #redraw(lines: readonly string[], above: string): void {
    const old = Math.min(this.#rowsOf(this.#drawn), this.#mostLines)
    this.#lines = lines
    this.#drawn = this.#fitting(lines)
    const up = old === 0 ? '' : moved(old, 'A')
    // what scrolls above may wrap: all rows that it takes are emptied before
    const covered = above === '' ? 0 : Math.min(old, this.#rowsOf(above.split('\n')))
    const emptied = covered === 0 ? '' : `${EMPTY_ROW}${moved(1, 'B')}`.repeat(covered) + moved(covered, 'A')
    this.#out.write(`${up}${emptied}${above}${this.#drawn.map((line) => `${EMPTY_ROW}${line}\n`).join('')}${old === 0 ? '' : EMPTY_BELOW}`)
  }

  /** The cursor stands below the drawing, in a row of its own. */
  get #mostLines(): number {
    const { rows } = this.#out
    // no terminal
    if (rows === undefined) return Number.POSITIVE_INFINITY
    return Math.max(1, (rows || 24) - 1)
  }

  #fitting(lines: readonly string[]): readonly string[] {
    const most = this.#mostLines
    const more = lines.length - most + 1
    const shown = lines.length <= most ? lines : [...lines.slice(0, most - 1), `  … ${more} more lines: millrace status FILE shows them`]
    return shown.map((line) => clip(line, this.width))
  }

  /** A terminal that became narrower has wrapped what was drawn. */
  #rowsOf(lines: readonly string[]): number {
    return lines.reduce((sum, line) => sum + Math.max(1, Math.ceil([...stripVTControlCharacters(line)].length / this.width)), 0)
  }
}

const EMPTY_ROW = '\u001b[2K'
const EMPTY_BELOW = '\u001b[0J'

function moved(rows: number, direction: 'A' | 'B'): string {
  return `\u001b[${rows}${direction}`
}

/** NO_COLOR (no-color.org) and a dumb terminal say no. */
export function wantsColor(io: CommandIo): boolean {
  return io.stderr.isTTY === true && !io.env.NO_COLOR && io.env.TERM !== 'dumb'
}
