import type { CommandIo } from './command.ts'

/** Lines redrawn in place at the end of a terminal, with ordinary lines scrolling above them. */
export class LiveScreen {
  readonly #out: CommandIo['stderr']
  #drawn: readonly string[] = []

  constructor(out: CommandIo['stderr']) {
    this.#out = out
  }

  get width(): number {
    return this.#out.columns ?? 80
  }

  draw(lines: readonly string[]): void {
    this.#out.write(`${this.#erase()}${lines.map((line) => `${line}\n`).join('')}`)
    this.#drawn = lines
  }

  /** Prints a line above the drawing. */
  log(line: string): void {
    const drawing = this.#drawn
    this.#out.write(`${this.#erase()}${line}\n${drawing.map((one) => `${one}\n`).join('')}`)
  }

  /** Leaves the drawing as it is; what follows is printed below. */
  end(): void {
    this.#drawn = []
  }

  #erase(): string {
    return this.#drawn.length === 0 ? '' : `\u001b[${this.#drawn.length}A\u001b[0J`
  }
}

/** NO_COLOR (no-color.org) and a dumb terminal say no. */
export function wantsColor(io: CommandIo): boolean {
  return io.stderr.isTTY === true && !io.env.NO_COLOR && io.env.TERM !== 'dumb'
}
