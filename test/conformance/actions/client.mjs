// One call of GitHub's clients: node client.mjs VERB [JSON]. The result goes
// to standard output as one line "RESULT {json}"; the clients log there too.
import fs from 'node:fs'
import path from 'node:path'
import * as core from '@actions/core'
import * as cache from '@actions/cache'
import * as github from '@actions/github'
import {DefaultArtifactClient} from '@actions/artifact'

const [verb, text = '{}'] = process.argv.slice(2)
const q = JSON.parse(text)
const artifacts = new DefaultArtifactClient()

const verbs = {
  upload: () => artifacts.uploadArtifact(q.name, q.files, q.root, q.options),
  list: () => artifacts.listArtifacts(q.options),
  get: () => artifacts.getArtifact(q.name, q.options),
  download: () => artifacts.downloadArtifact(q.id, q.options),
  delete: () => artifacts.deleteArtifact(q.name, q.options),
  save: () => cache.saveCache(q.paths, q.key, q.options),
  restore: () => cache.restoreCache(q.paths, q.key, q.restoreKeys, q.options),
  idToken: () => core.getIDToken(q.audience),
  context: () => ({repo: github.context.repo, ref: github.context.ref, action: github.context.payload.action, runId: github.context.runId}),
  rest: async () => (await github.getOctokit(q.token).request(q.route, q.parameters)).data,
  commands: () => {
    core.setSecret('hunter2\nsecond line')
    core.notice('100% sure,\nreally', {title: 'a:b,c', file: 'x/y.go', startLine: 3, endLine: 4, startColumn: 5, endColumn: 6})
    core.warning('careful')
    core.startGroup('inside')
    core.info('hunter2')
    core.endGroup()
    core.setOutput('answer', {a: [1, 2]})
    core.exportVariable('NAME', 'two\nlines')
    core.saveState('kept', 'yes')
    core.addPath('/opt/tool/bin')
  },
  random: () => { // a file that cannot be compressed, in pieces
    const f = fs.openSync(q.file, 'w')
    for (let i = 0; i < q.mib; i++) {
      const piece = Buffer.alloc(1 << 20)
      for (let j = 0; j < piece.length; j += 4) piece.writeInt32LE((Math.random() * 2 ** 32) | 0, j)
      fs.writeSync(f, piece)
    }
    fs.closeSync(f)
    return path.resolve(q.file)
  },
}

try {
  const result = await verbs[verb]()
  console.log('RESULT ' + JSON.stringify({ok: result ?? null}))
} catch (e) {
  console.log('RESULT ' + JSON.stringify({error: e.message, name: e.name}))
}
