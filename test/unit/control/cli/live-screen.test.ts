import { styleText } from 'node:util'
import { expect, test } from 'vitest'
import { LiveScreen } from '../../../../control/cli/live-screen.ts'

/** As much of a terminal as the screen uses: rows that scroll, a cursor that moves, erasing. As in tmux, a screen that is erased as a whole is kept in the history. */
class Terminal {
  columns: number
  rows: number
  readonly isTTY = true
  /** Rows that scrolled out, then those that are shown. */
  #all: string[] = ['']
  #top = 0
  #at = 0

  constructor(columns: number, rows: number) {
    this.columns = columns
    this.rows = rows
  }

  get shown(): string[] {
    return this.#all.slice(this.#top)
  }

  get scrolledOut(): string[] {
    return this.#all.slice(0, this.#top)
  }

  /** Wraps what is shown anew, as terminals do. */
  resize(columns: number, rows: number): void {
    const text = this.#all.flatMap((row) => (row === '' ? [''] : (row.match(new RegExp(`.{1,${columns}}`, 'gu')) ?? [])))
    this.columns = columns
    this.rows = rows
    this.#all = text
    this.#at = text.length - 1
    this.#top = Math.max(0, text.length - rows)
  }

  write(text: string): boolean {
    for (const [part, up, erase] of text.matchAll(/\u001b\[(\d+)A|(\u001b\[0J)|\u001b\[\d+m|\u001b\[2K|\u001b\[1B|[\s\S]/gu)) {
      if (up !== undefined) this.#at = Math.max(this.#top, this.#at - Number(up))
      else if (part === '\u001b[1B') this.#at = Math.min(this.#at + 1, this.#all.length - 1)
      else if (part === '\u001b[2K') this.#all[this.#at] = ''
      else if (erase !== undefined && this.#at === this.#top) {
        this.#at = this.#top = this.#all.push('') - 1
      } else if (erase !== undefined) {
        this.#all.length = this.#at
        this.#all.push('')
      } else if (part === '\n') this.#down()
      else if (!part.startsWith('\u001b')) {
        if (this.#all[this.#at]!.length >= this.columns) this.#down()
        this.#all[this.#at] += part
      }
    }
    return true
  }

  #down(): void {
    this.#at++
    if (this.#at === this.#all.length) this.#all.push('')
    this.#top = Math.max(this.#top, this.#all.length - this.rows)
  }
}

const lines = (count: number, text = 'line') => Array.from({ length: count }, (_, i) => `${text} ${i + 1}`)

test('is drawn in place, with log lines above it', () => {
  const terminal = new Terminal(40, 10)
  const screen = new LiveScreen(terminal)
  screen.draw(lines(3))
  screen.log('began')
  screen.draw(lines(2, 'now'))
  screen.log('went on')
  expect(terminal.shown).toEqual(['began', 'went on', 'now 1', 'now 2', ''])
  screen.end()
  screen.log('after')
  expect(terminal.shown).toEqual(['began', 'went on', 'now 1', 'now 2', 'after', ''])
})

test('more lines than the terminal has are cut, and never scroll out of it', () => {
  const terminal = new Terminal(60, 6)
  const screen = new LiveScreen(terminal)
  for (let turn = 0; turn < 20; turn++) {
    screen.draw(lines(12, `turn ${turn} line`))
    if (turn % 5 === 0) screen.log(`log ${turn}`)
  }
  expect(terminal.shown).toEqual([...lines(4, 'turn 19 line'), '  … 8 more lines: millrace status FILE shows them', ''])
  expect(terminal.scrolledOut).toEqual(['log 0', 'log 5', 'log 10', 'log 15'])
  terminal.rows = 2
  const low = new LiveScreen(terminal)
  low.draw(lines(3))
  expect(terminal.shown.at(-2)).toMatch(/3 more lines/)
})

test('a log line that wraps leaves nothing of the drawing behind it', () => {
  const terminal = new Terminal(20, 10)
  const screen = new LiveScreen(terminal)
  screen.draw(lines(3, 'a longer line'))
  screen.log(`${'z'.repeat(20)}${'z'.repeat(5)}`)
  expect(terminal.shown).toEqual(['z'.repeat(20), 'zzzzz', ...lines(3, 'a longer line'), ''])
})

test('a line is cut at the width, also when the terminal has become narrower', () => {
  const terminal = new Terminal(40, 10)
  const screen = new LiveScreen(terminal)
  const wide = [styleText('red', 'x'.repeat(60), { validateStream: false }), 'y'.repeat(39)]
  screen.draw(wide)
  expect(terminal.shown).toEqual([`${'x'.repeat(39)}…`, 'y'.repeat(39), ''])
  screen.log('before')
  terminal.resize(20, 10)
  screen.draw(wide)
  expect(terminal.shown).toEqual(['before', `${'x'.repeat(19)}…`, `${'y'.repeat(19)}…`, ''])
  terminal.resize(20, 3)
  screen.draw(wide)
  screen.log('after')
  expect(terminal.shown).toEqual([`${'x'.repeat(19)}…`, `${'y'.repeat(19)}…`, ''])
  expect(terminal.scrolledOut).toEqual(['before', 'after'])
})

test('a file or a pipe gets all lines', () => {
  const written: string[] = []
  new LiveScreen({ write: (text: string) => written.push(text) }).draw(lines(50))
  expect(written.join('').match(/line/g)).toHaveLength(50)
})
