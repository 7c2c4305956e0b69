// The agent of the conformance cases, in TypeScript: see docs/conformance/README.md.

import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { failure, serve, type Action } from '../../examples/typescript-worker/worker.ts'

const object = { type: 'object' }
const action = (run: Action['run'], more: Partial<Action> = {}): Action =>
  ({ description: run.name, timeoutMs: 60_000, inputSchema: object, outputSchema: object, run, ...more })
const told = (signal: AbortSignal) => new Promise((resolve) => signal.addEventListener('abort', resolve))

await serve({
  name: process.env.CONFORMANCE_AGENT ?? 'conformance-typescript',
  version: '1.0.0',
  description: 'Does what the conformance cases ask.',
  actions: {
    echo: action(async function echo(inputs) {
      if (!('value' in inputs)) throw failure('invalid_input', 'value: it is missing')
      return inputs
    }),
    fail: action(async function fail({ message, permanent }) {
      throw permanent ? failure('agent_error', message) : new Error(message)
    }),
    oversleep: action(() => new Promise(() => {}), { timeoutMs: 300 }),
    nothing: action(async function nothing() {}),
    grow: action(async ({ length }) => ({ text: 'x'.repeat(length) })),
    measure: action(async ({ text }) => ({ length: text.length })),
    stamp: action(async () => ({ stamp: randomUUID() })),
    risky: action(async () => ({ done: true }), { risk: 'APPROVAL_REQUIRED' }),
    count: action(async function count({ steps, pauseMs }, { progress }) {
      for (let step = 0; step < steps; step++) {
        if (steps > 1) progress((100 * step) / steps, `step ${step}`)
        await sleep(pauseMs)
      }
      return { steps }
    }),
    hold: action(async function hold({ then }, { signal }) {
      await told(signal)
      if (then === 'stop') throw new Error('stopped')
      if (then === 'ignore') await new Promise(() => {})
      return { done: true }
    }),
  },
})
