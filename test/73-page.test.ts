/** The chat page in a real browser: what it shows, what the keys do, and that a model's text can do nothing. */
import type { Browser, Page } from 'puppeteer-core'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { freshPage, noBrowser, startBrowser } from './browser.js'
import { type PageServer, servePage } from './page-server.js'

describe.skipIf(noBrowser())('the chat page', () => {
  let browser: Browser
  let server: PageServer
  let page: Page
  let faults: string[]
  let elsewhere: string[]

  beforeAll(async () => {
    browser = await startBrowser()
  }, 60_000)
  afterAll(() => browser.close())
  beforeEach(async () => {
    server = await servePage()
    ;({ page, faults, elsewhere } = await freshPage(browser, server.url))
    await ready()
  })
  afterEach(async () => {
    expect(faults).toEqual([])
    expect(elsewhere).toEqual([])
    await page.browserContext().close()
    await server.close()
  })

  const ready = () => page.waitForFunction('document.querySelector("#model").options.length > 0')
  const idle = () => page.waitForFunction('document.querySelector("#stop").hidden')
  const texts = (selector: string) =>
    page.$$eval(selector, (found) => found.map((one) => (one as HTMLElement).innerText.trim()))
  const typed = async (text: string) => {
    await page.type('#question', text)
    await page.keyboard.press('Enter')
  }
  const say = async (text: string) => {
    await typed(text)
    await page.waitForFunction((n) => document.querySelectorAll('li.assistant .foot button').length > n, {}, 0)
    await idle()
  }

  it('asks, streams, and says what it cost', async () => {
    server.answers = [{ text: 'The **answer** is 42.', parts: 4, pauseMs: 30 }]
    await typed('What is it?')
    await page.waitForSelector('#stop:not([hidden])')
    await idle()
    expect(server.asked[0]!.body.messages).toEqual([{ role: 'user', content: 'What is it?' }])
    expect(await page.$eval('.answer', (answer) => answer.innerHTML.trim())).toBe(
      '<p>The <strong>answer</strong> is 42.</p>',
    )
    expect((await texts('li.assistant .foot'))[0]).toMatch(/4 tokens · 12\.3 tokens\/s · prompt of 10, 4 of them known/)
    expect(await texts('#status')).toEqual(['The answer is complete.'])
    await say('And again?')
    expect(server.asked[1]!.body.messages).toHaveLength(3)
  })

  it('stops, and keeps what came', async () => {
    server.answers = [{ text: 'word '.repeat(100), parts: 100, pauseMs: 40 }]
    await typed('Go on')
    await page.waitForFunction('document.querySelector(".answer")?.textContent.includes("word word")')
    await page.keyboard.press('Escape')
    await idle()
    expect((await texts('li.assistant .foot'))[0]).toContain('stopped')
    expect((await texts('.answer'))[0]!.length).toBeLessThan(490)
    await expect.poll(() => server.left).toBe(1)
    expect(await page.evaluate('document.activeElement.id')).toBe('question')
  })

  it('answers again, and lets a message be edited', async () => {
    server.answers = [{ text: 'first' }, { text: 'second' }, { text: 'third' }, { text: 'fourth' }]
    await say('one')
    await page.evaluate(() =>
      [...document.querySelectorAll('button')].find((one) => one.textContent === 'Answer again')!.click(),
    )
    await page.waitForFunction('document.querySelector(".answer")?.innerText.includes("second")')
    await idle()
    expect(server.asked[1]!.body).toEqual(server.asked[0]!.body)
    await say('two')
    expect(await texts('.answer')).toEqual(['second', 'third'])
    // The arrow opens the last message; Enter sends it.
    await page.keyboard.press('ArrowUp')
    await page.waitForSelector('textarea.edit')
    await page.keyboard.down('Control')
    await page.keyboard.press('a')
    await page.keyboard.up('Control')
    await page.keyboard.type('two, changed')
    await page.keyboard.press('Enter')
    await page.waitForFunction('[...document.querySelectorAll(".answer")].at(-1).innerText.includes("fourth")')
    await idle()
    expect(server.asked.at(-1)!.body.messages!.map(({ content }) => content)).toEqual(['one', 'second', 'two, changed'])
    expect(await texts('.user .text')).toEqual(['one', 'two, changed'])
  })

  it('folds the thinking', async () => {
    server.answers = [{ reasoning: 'Let me see. <b>Hm.</b>', text: 'Done.', pauseMs: 120 }]
    await typed('Think')
    await page.waitForSelector('details.thinking[open]')
    await idle()
    expect(await page.$eval('details.thinking', (one) => (one as HTMLDetailsElement).open)).toBe(false)
    expect(await page.$eval('details.thinking div', (one) => one.textContent)).toBe('Let me see. <b>Hm.</b>')
    await say('More')
    // Thinking is not sent back.
    expect(JSON.stringify(server.asked[1]!.body)).not.toContain('Let me see')
  })

  it('keeps conversations over a reload, and renames and deletes them', async () => {
    await say('The first one')
    await page.keyboard.down('Control')
    await page.keyboard.down('Shift')
    await page.keyboard.press('O')
    await page.keyboard.up('Shift')
    await page.keyboard.up('Control')
    await say('The second one')
    await page.reload()
    await ready()
    expect(await texts('#conversations .open')).toEqual(['The second one', 'The first one'])
    expect(await texts('.user .text')).toEqual(['The second one'])
    await page.evaluate(() => (document.querySelectorAll('#conversations .open')[1] as HTMLElement).click())
    expect(await texts('.user .text')).toEqual(['The first one'])
    expect(await texts('.answer')).toEqual(['Yes.'])
    page.on('dialog', (dialog) => void dialog.accept(dialog.type() === 'prompt' ? 'Renamed' : undefined))
    await page.click('#conversations li[data-current] .small')
    await page.waitForFunction('document.querySelector("#conversations").innerText.includes("Renamed")')
    await page.click('#conversations li[data-current] .small:last-child')
    await page.waitForFunction('document.querySelectorAll("#conversations li").length === 1')
    expect(await texts('.user .text')).toEqual(['The second one'])
  })

  it('shares conversations and settings with another tab', async () => {
    await say('From the first tab')
    const other = await page.browserContext().newPage()
    await other.goto(server.url)
    await other.waitForFunction('document.querySelector("#model").options.length > 0')
    await other.bringToFront()
    await other.click('#new')
    await other.type('#question', 'From the second tab')
    await other.keyboard.press('Enter')
    await other.waitForFunction('document.querySelectorAll("li.assistant .foot button").length > 0')
    await page.bringToFront()
    await page.waitForFunction('document.querySelectorAll("#conversations li").length === 2')
    await page.click('#new')
    await say('The first again')
    const all = ['The first again', 'From the second tab', 'From the first tab']
    expect(await texts('#conversations .open')).toEqual(all)
    await other.waitForFunction('document.querySelectorAll("#conversations li").length === 3')
    await page.click('#theme')
    await other.waitForFunction('document.documentElement.dataset.theme === "light"')
    page.on('dialog', (dialog) => void dialog.accept())
    await page.click('#conversations li[data-current] .small:last-child')
    await other.waitForFunction('document.querySelectorAll("#conversations li").length === 2')
    await other.reload()
    await other.waitForFunction('document.querySelector("#model").options.length > 0')
    const kept = await other.$$eval('#conversations .open', (found) => found.map((one) => one.textContent))
    expect(kept).toEqual(all.slice(1))
  })

  it('sends the settings', async () => {
    await page.click('#open-settings')
    await page.type('[name=system]', 'Be short.')
    await page.type('[name=temperature]', '0')
    await page.type('[name=seed]', '7')
    await page.click('#settings-form button[value=save]')
    await say('Hi')
    expect(server.asked[0]!.body).toMatchObject({
      temperature: 0,
      seed: 7,
      messages: [
        { role: 'system', content: 'Be short.' },
        { role: 'user', content: 'Hi' },
      ],
    })
    expect(server.asked[0]!.body).not.toHaveProperty('top_p')
  })

  it('goes on with the text of a model that does not chat', async () => {
    server.models = [{ id: 'stories', has_chat_template: false }]
    server.answers = [{ text: ' there was a *cat*.' }]
    await page.reload()
    await page.waitForFunction('document.querySelector("#empty").innerText.includes("continues your text")')
    await say('Once')
    expect(server.asked[0]).toMatchObject({ path: '/v1/completions', body: { prompt: 'Once' } })
    expect(await texts('.answer')).toEqual(['there was a *cat*.'])
    await say(' It')
    expect(server.asked[1]!.body.prompt).toBe('Once there was a *cat*. It')
  })

  it.each([
    [{ status: 429, error: { message: 'x', code: 'queue_full' } }, /busy.*3 s/],
    [{ status: 503, error: { message: 'x', code: 'stopping' } }, /about to stop/],
    [
      { status: 400, error: { message: 'It has 9000 tokens.', code: 'context_length_exceeded' } },
      /9000 tokens.*new conversation/,
    ],
    [{ status: 500, error: { message: 'It broke.', code: 'x' } }, /It broke/],
  ])('says what is wrong: %j', async (made, said) => {
    server.answers = [made, { text: 'Better.' }]
    await typed('Hi')
    await page.waitForSelector('#problem:not([hidden])')
    expect((await texts('#problem'))[0]).toMatch(said)
    await say('Again')
    expect(await page.$eval('#problem', (one) => (one as HTMLElement).hidden)).toBe(true)
  })

  it('asks for a key, which stays in the tab', async () => {
    server.key = 'secret-key'
    await page.reload()
    await page.waitForSelector('#key[open]')
    await page.type('[name=key]', 'wrong')
    await page.keyboard.press('Enter')
    await page.waitForFunction('document.querySelector("#key").open')
    await page.waitForSelector('#key[open]')
    await page.$eval('[name=key]', (one) => {
      ;(one as HTMLInputElement).value = ''
    })
    await page.type('[name=key]', 'secret-key')
    await page.keyboard.press('Enter')
    await ready()
    await say('Hi')
    expect(await page.evaluate('JSON.stringify(localStorage)')).not.toContain('secret-key')
    expect(page.url()).not.toContain('secret-key')
  })

  describe('text of a model', () => {
    it.each([
      '<script>window.bad = 1</script>',
      '<img src=x onerror="window.bad = 1">',
      '<svg onload="window.bad = 1"><a xlink:href="javascript:window.bad=1">x</a></svg>',
      '[click](javascript:window.bad=1) [data](data:text/html,<script>window.bad=1</script>) [ok](https://example.org)',
      '![picture](https://example.org/track.png) ![x](javascript:window.bad=1)',
      '<style>body { display: none }</style><link rel=stylesheet href=https://example.org/x.css>',
      '<iframe srcdoc="<script>parent.bad = 1</script>"></iframe><form action=https://example.org><input autofocus onfocus="window.bad=1"></form>',
      '<math><mtext><table><mglyph><style><img src=x onerror="window.bad=1">',
      '`<b>` and\n\n```html\n<script>window.bad = 1</script>\n```',
      '<a href="https://example.org" onclick="window.bad=1" style="position:fixed;inset:0" class="skip" id="question">x</a>',
      '<base href="https://example.org/"><meta http-equiv="refresh" content="0;url=https://example.org">',
    ])('does nothing: %s', async (text) => {
      server.answers = [{ text }]
      await say('Be bad')
      await page.evaluate(() => {
        for (const link of document.querySelectorAll<HTMLElement>(
          '.answer a[href^="java" i], .answer a[href^="data" i]',
        ))
          link.click()
      })
      expect(await page.evaluate('window.bad')).toBeUndefined()
      const found = await page.$eval('.answer', (answer) => ({
        elements: [...answer.querySelectorAll('*')].map((one) => one.tagName.toLowerCase()),
        attributes: [...answer.querySelectorAll('*')].flatMap((one) => one.getAttributeNames()),
        links: [...answer.querySelectorAll('a')].map((link) => [link.protocol, link.rel]),
      }))
      for (const bad of ['script', 'img', 'svg', 'style', 'iframe', 'form', 'input', 'math', 'link', 'base', 'meta']) {
        expect(found.elements).not.toContain(bad)
      }
      for (const name of found.attributes) expect(name).not.toMatch(/^on|^style$|^id$|^srcdoc$/)
      for (const [protocol, rel] of found.links) {
        expect(['https:', 'http:', 'mailto:', ':']).toContain(protocol)
        expect(rel).toContain('noopener')
      }
    })

    it('is shown with code, lists and tables', async () => {
      server.answers = [{ text: '1. one\n2. two\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```python\nprint("<x>")\n```\n' }]
      await say('Show')
      expect(await texts('.answer li')).toEqual(['one', 'two'])
      expect(await texts('.answer td')).toEqual(['1', '2'])
      expect(await page.$eval('.codeblock code', (code) => code.textContent)).toBe('print("<x>")\n')
      expect((await texts('.codeblock .head'))[0]).toMatch(/python\s+Copy/)
    })

    it('of great length stays quick', async () => {
      server.answers = [{ text: `${'Some **text** with `code`.\n\n'.repeat(4000)}the end`, parts: 800 }]
      const started = performance.now()
      await typed('Much')
      await page.waitForFunction(
        'document.querySelector(".answer")?.textContent.endsWith("the end\\n") || document.querySelector(".answer")?.innerText.endsWith("the end")',
        { timeout: 60_000 },
      )
      await idle()
      expect(performance.now() - started).toBeLessThan(60_000)
    }, 90_000)
  })

  describe('for everyone', () => {
    it('fits a window of 360 pixels', async () => {
      server.answers = [{ text: `${'long'.repeat(80)}\n\n\`\`\`\n${'wide '.repeat(80)}\n\`\`\`` }]
      await page.setViewport({ width: 360, height: 640 })
      await say('word'.repeat(60))
      expect(await page.evaluate('document.documentElement.scrollWidth')).toBeLessThanOrEqual(360)
      await page.click('#open-drawer')
      await page.waitForFunction('document.activeElement.id === "new"')
      await page.keyboard.press('Escape')
      await page.waitForFunction('!("open" in document.querySelector("#drawer").dataset)')
    })

    it('names every control, and has no other live region than its messages', async () => {
      await say('Hi')
      const unnamed = await page.evaluate(
        () =>
          [...document.querySelectorAll<HTMLElement>('button, select, textarea, input')].filter(
            (one) =>
              !(
                one.getAttribute('aria-label') ||
                one.textContent!.trim() ||
                (one as HTMLInputElement).labels?.[0]?.textContent?.trim()
              ),
          ).length,
      )
      expect(unnamed).toBe(0)
      expect(await page.$$eval('[aria-live], [role=alert], [role=status]', (all) => all.map(({ id }) => id))).toEqual([
        'problem',
        'status',
      ])
      expect(await page.evaluate('document.documentElement.lang')).toBe('en')
    })

    it('can be used by keys alone', async () => {
      await page.keyboard.type('Hello')
      await page.keyboard.down('Shift')
      await page.keyboard.press('Enter')
      await page.keyboard.up('Shift')
      await page.keyboard.type('there')
      await page.keyboard.press('Enter')
      await page.waitForSelector('li.assistant .foot button')
      expect(server.asked[0]!.body.messages![0]!.content).toBe('Hello\nthere')
      const reached = new Set<string>()
      for (let i = 0; i < 25; i++) {
        await page.keyboard.press('Tab')
        reached.add(String(await page.evaluate('document.activeElement.id || document.activeElement.textContent')))
      }
      for (const name of ['model', 'theme', 'open-settings', 'send', 'new', 'Edit', 'Answer again'])
        expect([...reached]).toContain(name)
    })

    it.each(['light', 'dark'])('has enough contrast (%s)', async (theme) => {
      await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: theme }])
      const colours = (await page.evaluate(() => {
        const style = getComputedStyle(document.documentElement)
        const names = ['ground', 'raised', 'text', 'faint', 'accent', 'on-accent', 'own', 'bad', 'bad-ground', 'code']
        return Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]))
      })) as Record<string, string>
      for (const [text, ground] of [
        ['text', 'ground'],
        ['text', 'raised'],
        ['text', 'own'],
        ['text', 'code'],
        ['faint', 'ground'],
        ['faint', 'raised'],
        ['faint', 'own'],
        ['accent', 'ground'],
        ['on-accent', 'accent'],
        ['bad', 'bad-ground'],
      ] as const) {
        expect(contrast(colours[text]!, colours[ground]!), `${text} on ${ground}`).toBeGreaterThan(4.5)
      }
    })
  })
})

/** As the WCAG define it. */
function contrast(a: string, b: string): number {
  const luminance = (colour: string) => {
    const [red, green, blue] = [1, 3, 5].map((at) => {
      const x = Number.parseInt(colour.slice(at, at + 2), 16) / 255
      return x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4
    }) as [number, number, number]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
  }
  const [light, dark] = [luminance(a), luminance(b)].sort((x, y) => y - x) as [number, number]
  return (light + 0.05) / (dark + 0.05)
}
