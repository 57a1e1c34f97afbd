/** Python's strftime in the C locale, for `strftime_now`. */

const DAYS = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday']
const MONTHS = [
  ...['January', 'February', 'March', 'April', 'May', 'June', 'July'],
  ...['August', 'September', 'October', 'November', 'December'],
]
const DAY_MS = 86_400_000

/** Padding with zeros or spaces to a width; what has none in itself is a text. */
interface Part {
  text: string
  fill?: '0' | ' '
  width?: number
}

function number(value: number, width: number, fill: '0' | ' ' = '0'): Part {
  return { text: String(value), fill, width }
}

function dayOfYear(date: Date): number {
  const midnight = (year: number, month: number, day: number) => Date.UTC(year, month, day)
  const [year, month, day] = [date.getFullYear(), date.getMonth(), date.getDate()]
  return Math.round((midnight(year, month, day) - midnight(year, 0, 1)) / DAY_MS)
}

/** The year and week of ISO 8601: the week that holds most days of a year's beginning is its first. */
function isoWeek(date: Date): [number, number] {
  const weekday = (date.getDay() + 6) % 7
  const thursday = new Date(date.getFullYear(), date.getMonth(), date.getDate() + 3 - weekday)
  return [thursday.getFullYear(), Math.floor(dayOfYear(thursday) / 7) + 1]
}

type Directive = (date: Date) => Part

const text =
  (make: (date: Date) => string): Directive =>
  (date) => ({ text: make(date) })
const all = (format: string) => text((date) => strftime(date, format))
const digits =
  (width: number, make: (date: Date) => number, fill: '0' | ' ' = '0'): Directive =>
  (date) =>
    number(make(date), width, fill)

const dayName = (date: Date) => DAYS[date.getDay()]!
const monthName = (date: Date) => MONTHS[date.getMonth()]!
const halfDay = (date: Date) => date.getHours() % 12 || 12
const weekOf = (date: Date, daysSinceFirst: number) => Math.floor((dayOfYear(date) + 7 - daysSinceFirst) / 7)

const DIRECTIVES: Record<string, Directive> = {
  a: text((date) => dayName(date).slice(0, 3)),
  A: text(dayName),
  b: text((date) => monthName(date).slice(0, 3)),
  B: text(monthName),
  c: all('%a %b %e %H:%M:%S %Y'),
  C: digits(2, (date) => Math.floor(date.getFullYear() / 100)),
  d: digits(2, (date) => date.getDate()),
  D: all('%m/%d/%y'),
  e: digits(2, (date) => date.getDate(), ' '),
  f: digits(6, (date) => date.getMilliseconds() * 1000),
  F: all('%Y-%m-%d'),
  g: digits(2, (date) => isoWeek(date)[0] % 100),
  G: digits(1, (date) => isoWeek(date)[0]),
  h: text((date) => monthName(date).slice(0, 3)),
  H: digits(2, (date) => date.getHours()),
  I: digits(2, halfDay),
  j: digits(3, (date) => dayOfYear(date) + 1),
  k: digits(2, (date) => date.getHours(), ' '),
  l: digits(2, halfDay, ' '),
  m: digits(2, (date) => date.getMonth() + 1),
  M: digits(2, (date) => date.getMinutes()),
  n: text(() => '\n'),
  p: text((date) => (date.getHours() < 12 ? 'AM' : 'PM')),
  P: text((date) => (date.getHours() < 12 ? 'am' : 'pm')),
  r: all('%I:%M:%S %p'),
  R: all('%H:%M'),
  s: digits(1, (date) => Math.floor(date.getTime() / 1000)),
  S: digits(2, (date) => date.getSeconds()),
  t: text(() => '\t'),
  T: all('%H:%M:%S'),
  u: digits(1, (date) => date.getDay() || 7),
  U: digits(2, (date) => weekOf(date, date.getDay())),
  V: digits(2, (date) => isoWeek(date)[1]),
  w: digits(1, (date) => date.getDay()),
  W: digits(2, (date) => weekOf(date, (date.getDay() + 6) % 7)),
  x: all('%m/%d/%y'),
  X: all('%H:%M:%S'),
  y: digits(2, (date) => date.getFullYear() % 100),
  Y: digits(1, (date) => date.getFullYear()),
  // A datetime without a time zone has neither an offset nor a name.
  z: text(() => ''),
  Z: text(() => ''),
  '%': text(() => '%'),
}

/** `date` in local time. Flags and widths are glibc's; a directive that there is not stays as it is written, as there. */
export function strftime(date: Date, format: string): string {
  return format.replace(
    /%([-_0^#]*)(\d*)[EO]?([a-zA-Z%])/g,
    (whole, flags: string, width: string, directive: string) => {
      const found = DIRECTIVES[directive]?.(date)
      return found === undefined ? whole : padded(cased(found.text, flags, directive), found, flags, Number(width))
    },
  )
}

function cased(made: string, flags: string, directive: string): string {
  if (flags.includes('#')) return directive === 'p' ? made.toLowerCase() : made.toUpperCase()
  return flags.includes('^') ? made.toUpperCase() : made
}

/** The last of the flags for padding counts; `-` means none. */
function padded(made: string, { fill = ' ', width = 0 }: Part, flags: string, least: number): string {
  const flag = /[-_0](?!.*[-_0])/.exec(flags)?.[0]
  if (flag === '-') return made
  return made.padStart(Math.max(width, least), flag === undefined ? fill : flag === '0' ? '0' : ' ')
}
