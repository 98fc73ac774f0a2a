// Walks the pages in Chromium: node pages.js BASE_URL LONG_TRACE DEEP_TRACE CHAT_TRACE
// Prints one JSON object: problems found, and how long the big traces took to open.
const { chromium } = require('playwright-core');

const [base, longTrace, deepTrace, chatTrace] = process.argv.slice(2);
const PATHS = ['/traces', `/traces/${chatTrace}`, '/decisions', '/logs', '/series', '/sql', '/setup', '/overview', '/agents', '/continuity'];
const SIZES = [{ width: 1280, height: 900 }, { width: 390, height: 844 }];
const ARGS = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync',
];

async function open(browser, path, viewport, colorScheme, problems) {
  const page = await browser.newPage({ viewport, colorScheme });
  const where = `${path} at ${viewport.width} ${colorScheme}`;
  page.on('console', (message) => message.type() === 'error' && problems.push(`${where}: ${message.text()}`));
  page.on('pageerror', (error) => problems.push(`${where}: ${error}`));
  page.on('request', (request) => {
    if (!request.url().startsWith(base) && !request.url().startsWith('data:')) {
      problems.push(`${where}: a request to ${request.url()}`);
    }
  });
  const reply = await page.goto(base + path, { waitUntil: 'load' });
  if (reply.status() !== 200) problems.push(`${where}: status ${reply.status()}`);
  const width = await page.evaluate(() => document.documentElement.scrollWidth);
  if (width > viewport.width) problems.push(`${where}: ${width} pixels wide, scrolls sideways`);
  return page;
}

async function big(browser, path, spans, problems) {
  const page = await open(browser, path, SIZES[0], 'light', problems);
  const openedMs = await page.evaluate(() => performance.getEntriesByType('navigation')[0].loadEventEnd);
  const rows = page.locator('#tree [role=row]');
  await page.waitForFunction((count) => document.querySelectorAll('#tree [role=row]').length >= count, spans);
  const found = await rows.count();
  if (found !== spans) problems.push(`${path}: expected ${spans} rows, found ${found}`);
  const allRowsMs = await page.evaluate(() => performance.now());
  await page.close();
  return { spans, opened_ms: Math.round(openedMs), all_rows_ms: Math.round(allRowsMs) };
}

async function main() {
  const problems = [];
  const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: ARGS });
  for (const size of SIZES) {
    for (const scheme of ['light', 'dark']) {
      for (const path of PATHS) await (await open(browser, path, size, scheme, problems)).close();
    }
  }
  const chat = await open(browser, `/traces/${chatTrace}`, SIZES[0], 'light', problems);
  await chat.locator('#tree a.nm', { hasText: /^chat / }).first().click();
  await chat.getByText('What is the weather in Lisbon?').first().waitFor();
  await chat.close();
  const long = await big(browser, `/traces/${longTrace}`, 5000, problems);
  const deep = await big(browser, `/traces/${deepTrace}`, 60, problems);
  await browser.close();
  console.log(JSON.stringify({ problems, long, deep }));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
