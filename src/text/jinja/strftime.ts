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

/** A directive's value; undefined for one that there is not. */
function part(date: Date, directive: string): Part | undefined {
  const all = (format: string) => ({ text: strftime(date, format) })
  const hour = date.getHours()
  const yearDay = dayOfYear(date)
  switch (directive) {
    case 'a':
      return { text: DAYS[date.getDay()]!.slice(0, 3) }
    case 'A':
      return { text: DAYS[date.getDay()]! }
    case 'b':
    case 'h':
      return { text: MONTHS[date.getMonth()]!.slice(0, 3) }
    case 'B':
      return { text: MONTHS[date.getMonth()]! }
    case 'c':
      return all('%a %b %e %H:%M:%S %Y')
    case 'C':
      return number(Math.floor(date.getFullYear() / 100), 2)
    case 'd':
      return number(date.getDate(), 2)
    case 'D':
    case 'x':
      return all('%m/%d/%y')
    case 'e':
      return number(date.getDate(), 2, ' ')
    case 'f':
      return number(date.getMilliseconds() * 1000, 6)
    case 'F':
      return all('%Y-%m-%d')
    case 'g':
      return number(isoWeek(date)[0] % 100, 2)
    case 'G':
      return number(isoWeek(date)[0], 1)
    case 'H':
      return number(hour, 2)
    case 'I':
      return number(hour % 12 || 12, 2)
    case 'j':
      return number(yearDay + 1, 3)
    case 'k':
      return number(hour, 2, ' ')
    case 'l':
      return number(hour % 12 || 12, 2, ' ')
    case 'm':
      return number(date.getMonth() + 1, 2)
    case 'M':
      return number(date.getMinutes(), 2)
    case 'n':
      return { text: '\n' }
    case 'p':
      return { text: hour < 12 ? 'AM' : 'PM' }
    case 'P':
      return { text: hour < 12 ? 'am' : 'pm' }
    case 'r':
      return all('%I:%M:%S %p')
    case 'R':
      return all('%H:%M')
    case 's':
      return number(Math.floor(date.getTime() / 1000), 1)
    case 'S':
      return number(date.getSeconds(), 2)
    case 't':
      return { text: '\t' }
    case 'T':
    case 'X':
      return all('%H:%M:%S')
    case 'u':
      return number(date.getDay() || 7, 1)
    case 'U':
      return number(Math.floor((yearDay + 7 - date.getDay()) / 7), 2)
    case 'V':
      return number(isoWeek(date)[1], 2)
    case 'w':
      return number(date.getDay(), 1)
    case 'W':
      return number(Math.floor((yearDay + 7 - ((date.getDay() + 6) % 7)) / 7), 2)
    case 'y':
      return number(date.getFullYear() % 100, 2)
    case 'Y':
      return number(date.getFullYear(), 1)
    case 'z':
    case 'Z':
      return { text: '' } // a datetime without a time zone
    case '%':
      return { text: '%' }
  }
  return undefined
}

/** `date` in local time. Flags and widths are glibc's; a directive that there is not stays as it is written, as there. */
export function strftime(date: Date, format: string): string {
  return format.replace(
    /%([-_0^#]*)(\d*)([EO]?)([a-zA-Z%])/g,
    (whole, flags: string, width: string, _era, directive) => {
      const found = part(date, directive)
      if (found === undefined) return whole
      let { text, fill = ' ' } = found
      if (flags.includes('^')) text = text.toUpperCase()
      if (flags.includes('#')) text = directive === 'p' ? text.toLowerCase() : text.toUpperCase()
      const padding = /[-_0](?!.*[-_0])/.exec(flags)?.[0]
      if (padding === '-') return text
      if (padding) fill = padding === '0' ? '0' : ' '
      return text.padStart(Math.max(found.width ?? 0, Number(width)), fill)
    },
  )
}
