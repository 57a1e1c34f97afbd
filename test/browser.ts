/** A browser for tests: Debian's chromium, or what CHROMIUM names. */
import { existsSync } from 'node:fs'
import puppeteer, { type Browser, type Page } from 'puppeteer-core'

const PLACES = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome']

const found = [process.env.CHROMIUM ?? '', ...PLACES].find((path) => path !== '' && existsSync(path))

/** For `describe.skipIf(noBrowser())`: says so once. */
export function noBrowser(): boolean {
  if (!found) console.warn('skipped: no chromium was found (CHROMIUM names one)')
  return !found
}

export function startBrowser(): Promise<Browser> {
  return puppeteer.launch({
    executablePath: found!,
    args: ['--no-sandbox', '--headless=new', '--disable-dev-shm-usage'],
  })
}

/** A page without anything kept, and what went wrong in it. */
export async function freshPage(
  browser: Browser,
  url: string,
): Promise<{ page: Page; faults: string[]; elsewhere: string[] }> {
  const context = await browser.createBrowserContext()
  const page = await context.newPage()
  const faults: string[] = []
  const elsewhere: string[] = []
  page.on('pageerror', (error) => faults.push(String(error)))
  page.on('console', (message) => {
    // A status that is an error is one of the console too.
    if (['error', 'warn'].includes(message.type()) && !message.text().includes('the server responded with'))
      faults.push(message.text())
  })
  page.on('request', (request) => {
    if (!request.url().startsWith(url) && !/^(data|blob):/.test(request.url())) elsewhere.push(request.url())
  })
  await page.goto(url)
  return { page, faults, elsewhere }
}
