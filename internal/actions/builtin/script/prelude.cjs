// The world of actions/github-script for the node of this machine: github,
// context, core, exec, io, glob over fetch and files. What it leaves out fails
// by name. Arguments: the folder of this step.
'use strict'
const fs = require('fs'), path = require('path'), os = require('os')
const { spawn } = require('child_process')
const { createRequire } = require('module')
const dir = process.argv[2]
const cfg = JSON.parse(fs.readFileSync(path.join(dir, 'input.json'), 'utf8'))
const report = fs.openSync(path.join(dir, 'report.jsonl'), 'a')
const tell = o => fs.writeSync(report, JSON.stringify(o) + '\n')
const text = v => v === undefined || v === null ? '' : typeof v === 'string' ? v : JSON.stringify(v)
const esc = s => text(s).replace(/%/g, '%25').replace(/\r/g, '%0D').replace(/\n/g, '%0A')
const escProp = s => esc(s).replace(/:/g, '%3A').replace(/,/g, '%2C')
const say = (name, message, props) => {
  const p = Object.entries(props || {}).filter(([, v]) => v !== undefined && v !== '').map(([k, v]) => k + '=' + escProp(String(v))).join(',')
  process.stdout.write(`::${name}${p ? ' ' + p : ''}::${esc(message instanceof Error ? message.toString() : message)}\n`)
}
const place = p => p && ({ title: p.title, file: p.file, line: p.startLine, endLine: p.endLine, col: p.startColumn, endColumn: p.endColumn })
const missing = what => { throw new Error(`${what} is not part of this engine's actions/github-script: use github.request or a step of its own`) }

class Summary {
  constructor () { this.buffer = '' }
  stringify () { return this.buffer }
  isEmptyBuffer () { return this.buffer === '' }
  emptyBuffer () { this.buffer = ''; return this }
  addRaw (s, eol) { this.buffer += s; return eol ? this.addEOL() : this }
  addEOL () { return this.addRaw(os.EOL) }
  el (tag, content, attrs) {
    const a = Object.entries(attrs || {}).filter(([, v]) => v !== undefined).map(([k, v]) => ` ${k}="${v}"`).join('')
    return content === null ? `<${tag}${a}>` : `<${tag}${a}>${content}</${tag}>`
  }
  addCodeBlock (code, lang) { return this.addRaw(this.el('pre', this.el('code', code), { lang })).addEOL() }
  addList (items, ordered) { return this.addRaw(this.el(ordered ? 'ol' : 'ul', items.map(i => this.el('li', i)).join(''))).addEOL() }
  addTable (rows) {
    const cell = c => typeof c === 'string' ? this.el('td', c) : this.el(c.header ? 'th' : 'td', c.data, { colspan: c.colspan, rowspan: c.rowspan })
    return this.addRaw(this.el('table', rows.map(r => this.el('tr', r.map(cell).join(''))).join(''))).addEOL()
  }
  addDetails (label, content) { return this.addRaw(this.el('details', this.el('summary', label) + content)).addEOL() }
  addImage (src, alt, o) { return this.addRaw(this.el('img', null, { src, alt, ...o })).addEOL() }
  addHeading (s, level) { return this.addRaw(this.el('h' + ([1, 2, 3, 4, 5, 6].includes(Number(level)) ? level : 1), s)).addEOL() }
  addSeparator () { return this.addRaw('<hr>').addEOL() }
  addBreak () { return this.addRaw('<br>').addEOL() }
  addQuote (s, cite) { return this.addRaw(this.el('blockquote', s, { cite })).addEOL() }
  addLink (s, href) { return this.addRaw(this.el('a', s, { href })).addEOL() }
  async write (o) { tell({ summary: this.buffer, overwrite: !!(o && o.overwrite) }); return this.emptyBuffer() }
  async clear () { return this.emptyBuffer().write({ overwrite: true }) }
}

const core = {
  setOutput: (name, value) => tell({ output: name, value: text(value) }),
  exportVariable: (name, value) => { process.env[name] = text(value); tell({ env: name, value: text(value) }) },
  addPath: p => { process.env.PATH = p + path.delimiter + process.env.PATH; tell({ path: p }) },
  setSecret: s => say('add-mask', s),
  setFailed: m => { process.exitCode = 1; say('error', m) },
  error: (m, p) => say('error', m, place(p)), warning: (m, p) => say('warning', m, place(p)), notice: (m, p) => say('notice', m, place(p)),
  debug: m => say('debug', m), info: m => process.stdout.write(m + os.EOL), isDebug: () => process.env.RUNNER_DEBUG === '1',
  startGroup: n => say('group', n), endGroup: () => say('endgroup', ''),
  group: async (n, f) => { say('group', n); try { return await f() } finally { say('endgroup', '') } },
  getInput: (name, o) => {
    const v = process.env['INPUT_' + name.replace(/ /g, '_').toUpperCase()] || ''
    if (o && o.required && !v) throw new Error('Input required and not supplied: ' + name)
    return o && o.trimWhitespace === false ? v : v.trim()
  },
  getBooleanInput: name => ['true', 'True', 'TRUE'].includes(core.getInput(name)),
  getMultilineInput: name => core.getInput(name).split('\n').filter(x => x !== ''),
  saveState: () => missing('core.saveState'), getState: () => '', setCommandEcho: () => {},
  getIDToken: async aud => {
    const url = process.env.ACTIONS_ID_TOKEN_REQUEST_URL
    if (!url) throw new Error('Unable to get ACTIONS_ID_TOKEN_REQUEST_URL env variable: add `permissions:` with `id-token: write`')
    const r = await fetch(url + (aud ? '&audience=' + encodeURIComponent(aud) : ''), { headers: { authorization: 'Bearer ' + process.env.ACTIONS_ID_TOKEN_REQUEST_TOKEN } })
    const { value } = await r.json(); say('add-mask', value); return value
  },
  summary: new Summary(), ExitCode: { Success: 0, Failure: 1 }, platform: { platform: 'linux', arch: process.arch, isLinux: true, isWindows: false, isMacOS: false }
}

const words = line => (line.match(/(?:[^\s"]+|"(?:\\.|[^"\\])*")+/g) || []).map(w => w.replace(/"((?:\\.|[^"\\])*)"/g, (_, s) => s.replace(/\\(.)/g, '$1')))
const exec = {
  exec: (line, args, o = {}) => new Promise((resolve, reject) => {
    const [program, ...first] = words(line)
    if (!o.silent) core.info('[command]' + [program, ...first, ...(args || [])].join(' '))
    const p = spawn(program, [...first, ...(args || [])], { cwd: o.cwd, env: o.env || process.env, stdio: ['pipe', 'pipe', 'pipe'] })
    const hear = (stream, out, on) => stream.on('data', d => { if (!o.silent) out.write(d); if (o.listeners && o.listeners[on]) o.listeners[on](d) })
    hear(p.stdout, process.stdout, 'stdout'); hear(p.stderr, process.stdout, 'stderr')
    p.on('error', e => reject(new Error(`There was an error when attempting to execute the process '${program}': ${e.message}`)))
    p.on('close', code => code === 0 || o.ignoreReturnCode ? resolve(code) : reject(new Error(`The process '${program}' failed with exit code ${code}`)))
    p.stdin.on('error', () => {}); p.stdin.end(o.input)
  }),
  getExecOutput: async (line, args, o = {}) => {
    const out = [], err = []
    const exitCode = await exec.exec(line, args, { ...o, listeners: { stdout: d => out.push(d), stderr: d => err.push(d) } })
    return { exitCode, stdout: Buffer.concat(out).toString(), stderr: Buffer.concat(err).toString() }
  }
}
const io = {
  cp: async (a, b, o = {}) => fs.promises.cp(a, fs.existsSync(b) && fs.statSync(b).isDirectory() && o.copySourceDirectory !== false ? path.join(b, path.basename(a)) : b, { recursive: !!o.recursive, force: o.force !== false }),
  mv: (a, b) => fs.promises.rename(a, b), rmRF: p => fs.promises.rm(p, { recursive: true, force: true }), mkdirP: p => fs.promises.mkdir(p, { recursive: true }),
  which: async (name, check) => {
    const hit = (process.env.PATH || '').split(path.delimiter).map(d => path.join(d, name)).find(f => { try { fs.accessSync(f, fs.constants.X_OK); return true } catch { return false } })
    if (!hit && check) throw new Error(`Unable to locate executable file: ${name}`)
    return hit || ''
  }
}
const globRegex = p => new RegExp('^' + p.replace(/[.+^${}()|\\]/g, '\\$&').replace(/\*\*\/|\*\*|\*|\?/g, m => ({ '**/': '(?:.*/)?', '**': '.*', '*': '[^/]*', '?': '[^/]' })[m]) + '(?:/.*)?$')
const glob = {
  create: async patterns => ({
    glob: async () => {
      const lines = patterns.split('\n').map(s => s.trim()).filter(s => s && !s.startsWith('#'))
      const rules = lines.map(l => ({ not: l[0] === '!', re: globRegex(path.resolve(l.replace(/^!/, ''))) }))
      const out = [], walk = d => { for (const e of fs.readdirSync(d, { withFileTypes: true })) { const f = path.join(d, e.name); let hit = false; for (const r of rules) if (r.re.test(f)) hit = !r.not; if (hit) out.push(f); if (e.isDirectory()) walk(f) } }
      walk(process.cwd()); return out
    }
  }),
  hashFiles: () => missing('glob.hashFiles')
}

// ---- github
const headers = extra => ({ accept: 'application/vnd.github+json', 'user-agent': 'actions/github-script', 'x-github-api-version': '2022-11-28', authorization: 'token ' + cfg.token, ...extra })
class RequestError extends Error { constructor (message, status, response) { super(message); this.name = 'HttpError'; this.status = status; this.response = response } }
async function request (route, params = {}) {
  if (typeof route === 'object') { params = { ...route }; route = `${params.method || 'GET'} ${params.url}`; delete params.method; delete params.url }
  let [method, url] = route.includes(' ') ? route.split(' ') : ['GET', route]
  const rest = { ...params }, own = rest.headers || {}
  const { mediaType, baseUrl, request: _, ...left } = rest; delete left.headers
  url = url.replace(/\{\+?([a-z_]+)\}|:([a-z_]+)/g, (all, a, b) => { const k = a || b; if (!(k in left)) return all; const v = left[k]; delete left[k]; return encodeURIComponent(v).replace(/%2F/g, k === 'path' || k === 'ref' ? '/' : '%2F') })
  if (!/^https?:/.test(url)) url = (baseUrl || cfg.apiURL) + url
  const options = { method, headers: headers(own), redirect: 'follow' }
  if (mediaType && mediaType.format) options.headers.accept = `application/vnd.github.${mediaType.format}+json`
  if (method === 'GET' || method === 'HEAD') {
    const q = new URLSearchParams(); for (const [k, v] of Object.entries(left)) if (v !== undefined && v !== null) q.append(k, v)
    if ([...q].length) url += (url.includes('?') ? '&' : '?') + q
  } else if ('data' in left && Object.keys(left).length === 1) { options.body = typeof left.data === 'string' || Buffer.isBuffer(left.data) ? left.data : JSON.stringify(left.data) } else if (Object.keys(left).length) {
    const { data, ...fields } = left
    options.body = data !== undefined && (typeof data === 'string' || Buffer.isBuffer(data)) ? data : JSON.stringify({ ...fields, ...(data || {}) })
  }
  if (options.body !== undefined && !options.headers['content-type']) options.headers['content-type'] = 'application/json; charset=utf-8'
  for (let attempt = 0; ; attempt++) {
    const r = await fetch(url, options)
    const type = r.headers.get('content-type') || ''
    const data = r.status === 204 || r.status === 304 ? undefined : /json/.test(type) ? await r.json() : /^text\/|charset=utf-8$/.test(type) ? await r.text() : await r.arrayBuffer()
    const response = { status: r.status, url: r.url, headers: Object.fromEntries(r.headers), data }
    if (r.status < 400 && r.status !== 304) return response
    if (attempt < cfg.retries && !cfg.exempt.includes(r.status)) { await new Promise(f => setTimeout(f, (attempt + 1) ** 2 * 1000)); continue }
    throw new RequestError((data && data.message ? data.message + (data.documentation_url ? ' - ' + data.documentation_url : '') : 'status ' + r.status), r.status, response)
  }
}
const R = '/repos/{owner}/{repo}'
const routes = JSON.parse(fs.readFileSync(path.join(dir, 'routes.json'), 'utf8'))
const endpoint = name => {
  const route = routes[name]
  if (!route) return Object.assign(() => missing('github.rest.' + name), { route: '' })
  const call = p => request(route.replace('R/', R + '/').replace(/ R$/, ' ' + R), p)
  return Object.assign(call, { route: route.replace('R/', R + '/').replace(/ R$/, ' ' + R), endpoint: p => p })
}
const rest = new Proxy({}, { get: (_, group) => new Proxy({}, { get: (_, name) => endpoint(`${String(group)}.${String(name)}`) }) })
const listOf = d => Array.isArray(d) ? d : d && typeof d === 'object' ? d[Object.keys(d).find(k => Array.isArray(d[k]))] || [] : []
async function * pages (what, params) {
  const call = typeof what === 'function' ? what : p => request(what, p)
  let r = await call({ per_page: 100, ...params })
  for (let n = 0; n < 1000; n++) {
    r.data = listOf(r.data); yield r
    const next = /<([^>]+)>; rel="next"/.exec(r.headers.link || '')
    if (!next) return
    r = await request('GET ' + next[1])
  }
}
const paginate = Object.assign(async (what, params, map) => {
  const all = []; let stop = false
  if (typeof params === 'function') { map = params; params = undefined }
  for await (const r of pages(what, params)) { all.push(...(map ? map(r, () => { stop = true }) : r.data)); if (stop) break }
  return all
}, { iterator: pages })
const graphql = async (query, variables) => {
  const r = await request('POST ' + cfg.graphqlURL, { query, variables })
  if (r.data.errors) throw new Error('Request failed due to following response errors:\n' + r.data.errors.map(e => ' - ' + e.message).join('\n'))
  return r.data.data
}
const github = { rest, request, paginate, graphql, hook: { wrap () {}, before () {}, after () {}, error () {} }, log: core, auth: async () => ({ type: 'token', token: cfg.token }) }
const octokitOf = token => { if (token && token !== cfg.token) missing('getOctokit with another token'); return github }

const e = process.env, payload = e.GITHUB_EVENT_PATH && fs.existsSync(e.GITHUB_EVENT_PATH) ? JSON.parse(fs.readFileSync(e.GITHUB_EVENT_PATH, 'utf8')) : {}
const [owner, repo] = (e.GITHUB_REPOSITORY || '/').split('/')
const context = {
  payload, eventName: e.GITHUB_EVENT_NAME, sha: e.GITHUB_SHA, ref: e.GITHUB_REF, workflow: e.GITHUB_WORKFLOW, action: e.GITHUB_ACTION, actor: e.GITHUB_ACTOR, job: e.GITHUB_JOB,
  runAttempt: Number(e.GITHUB_RUN_ATTEMPT), runNumber: Number(e.GITHUB_RUN_NUMBER), runId: Number(e.GITHUB_RUN_ID), apiUrl: cfg.apiURL, serverUrl: e.GITHUB_SERVER_URL, graphqlUrl: cfg.graphqlURL,
  repo: { owner, repo }, get issue () { const p = payload; return { owner, repo, number: (p.issue || p.pull_request || p).number } }
}

;(async () => {
  const require_ = createRequire(path.join(process.cwd(), 'package.json'))
  const wrapped = new Proxy(require_, { apply: (t, self, [name]) => {
    if (name === '@actions/core') return core
    if (name === '@actions/github') return { context, getOctokit: octokitOf }
    if (name === '@actions/exec') return exec
    if (name === '@actions/io') return io
    return t(name.startsWith('.') ? path.resolve(name) : name)
  } })
  const AsyncFunction = Object.getPrototypeOf(async () => {}).constructor
  const names = { require: wrapped, __original_require__: require_, github, octokit: github, getOctokit: octokitOf, context, core, exec, glob, io }
  const result = await new AsyncFunction(...Object.keys(names), cfg.script)(...Object.values(names))
  if (result !== undefined || cfg.encoding === 'json') core.setOutput('result', cfg.encoding === 'string' ? String(result === undefined ? '' : result) : JSON.stringify(result) || '')
})().catch(err => { console.error(err && err.stack || err); core.setFailed(`Unhandled error: ${err}`) })
