// A worker for CommandCenter in TypeScript: all that serving an agent takes, in any language.
// It speaks Kafka alone, as docs/asyncapi.yaml says. Node runs this file as it is.
import { existsSync, readFileSync } from 'node:fs'
import { homedir, hostname } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { Kafka, logLevel, Partitioners, type EachMessagePayload } from 'kafkajs'

export interface Action {
  description: string; risk?: 'AUTO' | 'APPROVAL_REQUIRED'; timeoutMs: number; inputSchema: object; outputSchema: object
  run(inputs: any, context: { signal: AbortSignal; progress(percent?: number, message?: string): void }): unknown
}
export interface Agent { name: string; version: string; description: string; actions: Record<string, Action> }
interface Task {
  v: number; id: string; run: string; project: string; node: string; item?: number; attempt: number; action: string
  inputs: unknown; timeoutMs: number; replyPartition: number; approved?: boolean; report?: boolean; heartbeatMs?: number
}
interface Order { task: string; agent: string; reason: string; graceMs?: number }

/** What an action throws to say what kind of failure it is; anything else is an agent_error. */
export class Failure extends Error { kind = ''; retryable = false }
export const failure = (kind: string, message: string, retryable = false) =>
  Object.assign(new Failure(message), { kind, retryable })

const BLOBS = process.env.COMMANDCENTER_BLOBS || `${homedir()}/.local/share/commandcenter/blobs`
const worker = `${hostname()}/${process.pid}`

const parsed = (bytes: Buffer | null) => { try { return JSON.parse(String(bytes)) } catch { return undefined } }
const remember = <T>(map: Map<string, T>, key: string, value: T) =>
  map.set(key, value).size > 1000 && map.delete(map.keys().next().value!)

/** The value of this JSON, with the content of big payloads where references to them stand. */
function whole(project: string, json: string): any {
  return JSON.parse(json, (_, value) => {
    const digest = value?.$blob
    if (typeof digest !== 'string' || !/^[0-9a-f]{64}$/.test(digest) || !('size' in value)) return value
    const file = `${BLOBS}/${project}/${digest.slice(0, 2)}/${digest}`
    if (!existsSync(file)) throw failure('invalid_input', `there is no ${file}: set COMMANDCENTER_BLOBS`)
    return whole(project, readFileSync(file, 'utf8'))
  })
}

/** Serve the agent until SIGINT or SIGTERM. */
export async function serve(agent: Agent): Promise<void> {
  const { name, version, actions } = agent
  const brokers = (process.env.COMMANDCENTER_KAFKA || '127.0.0.1:9092').split(',')
  const kafka = new Kafka({ clientId: worker, brokers, logLevel: logLevel.WARN, retry: { retries: 1000 } })
  const [admin, producer] = [kafka.admin(), kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner })]
  const [topic, group] = [`commandcenter.tasks.${name}`, `commandcenter.${name}`]
  const tasks = kafka.consumer({ groupId: group }) // workers of one agent share its tasks
  const orders = kafka.consumer({ groupId: `${group}.orders.${worker}` }) // each reads every order
  const [calledOff, atWork] = [new Map<string, Order>(), new Map<string, (order: Order) => void>()]
  const results = new Map<string, object>()

  const send = (to: string, key: Buffer | string | null, record: object | null, partition = 0) => producer.send(
    { topic: `commandcenter.${to}`, messages: [{ key, value: record && JSON.stringify(record), partition }] })
  const about = ({ run, node, item, attempt }: Task, type: string, more: object) =>
    ({ v: 1, type, run, node, item, attempt, worker, ...more })

  async function work(task: Task, alive: () => Promise<void>): Promise<object> {
    const [startedAt, stop, every] = [Date.now(), new AbortController(), Math.min(1000, (task.heartbeatMs || 3000) / 3)]
    const [timers, givenUp] = [[] as NodeJS.Timeout[], Promise.withResolvers<never>()]
    givenUp.promise.catch(() => {}) // nobody may be waiting for it
    const end = (why: Failure, graceMs = 0) => {
      stop.abort(why) // the first reason counts
      timers.push(setTimeout(givenUp.reject, graceMs, why))
    }
    let [told, saidAt, fresh, outcome] = [{}, 0, false, {}]
    const speak = () => {
      [saidAt, fresh] = [Date.now(), false]
      send('inbox', task.run, about(task, 'progress', told), task.replyPartition).catch(console.error)
    }
    const progress = (percent?: number, message = '') => {
      [told, fresh] = [{ percent, message: message.slice(0, 500) }, true]
      if (Date.now() - saidAt >= every) speak()
    }
    try {
      const action = Object.hasOwn(actions, task.action) ? actions[task.action] : undefined
      if (!action) throw failure('unknown_action', `agent ${name} has no action ${task.action}`)
      if (action.risk === 'APPROVAL_REQUIRED' && !task.approved)
        throw failure('approval_required', `a person has to approve ${name} ${task.action}`)
      atWork.set(task.id, (order) => end(failure('cancelled', order.reason), order.graceMs))
      if (calledOff.has(task.id)) throw failure('cancelled', calledOff.get(task.id)!.reason)
      const limit = Math.min(task.timeoutMs, action.timeoutMs)
      timers.push(setTimeout(() => end(failure('timeout', `it did not finish within ${limit} ms`, true)), limit))
      timers.push(setInterval(() => alive().catch(() => {}), 2000)) // tells Kafka: this consumer lives
      timers.push(setInterval(() => { if (fresh || (task.report && task.heartbeatMs)) speak() }, every))
      if (task.report) speak()
      const inputs = whole(task.project, JSON.stringify(task.inputs))
      const output = await Promise.race([action.run(inputs, { signal: stop.signal, progress }), givenUp.promise])
      const size = Buffer.byteLength(JSON.stringify(output) ?? '')
      if (size === 0) throw failure('invalid_output', 'what the action returned is not JSON')
      if (size > 8 << 20) throw failure('output_too_large', `the output has ${size} bytes; 8 MiB may be`)
      outcome = { output }
    } catch (thrown) {
      const error = stop.signal.aborted ? stop.signal.reason : thrown
      const { kind, retryable } = error instanceof Failure ? error : { kind: 'agent_error', retryable: true }
      const message = (error instanceof Failure ? error.message : String(error)).slice(0, 2000)
      outcome = { failure: { kind, message, retryable, error: kind === 'agent_error' ? error?.name : undefined } }
    } finally {
      atWork.delete(task.id)
      timers.forEach(clearTimeout)
    }
    const finishedAt = Date.now()
    const nano = Math.round(((finishedAt - startedAt) * 1e9) / 60_000) // of minutes at 0.01 USD, exactly
    const [quantity, amount] = [(nano / 1e9).toFixed(9), (nano / 1e11).toFixed(11)]
    const costs = [{ kind: 'compute', source: name, unit: 'minute', quantity, unitPrice: '0.01', amount }]
    return about(task, 'result', { startedAt, finishedAt, agentVersion: version, costs, ...outcome })
  }

  async function take({ message, partition, heartbeat }: EachMessagePayload): Promise<void> {
    const task: Task = parsed(message.value)
    if (task?.v !== 1 || !task.id || !task.run) {
      const [key, value] = [message.key, message.value].map((bytes) => bytes?.toString('base64'))
      const why = { error: 'UnreadableRecordError', reason: 'not a task of format version 1', at: Date.now(), worker }
      const letter = { v: 1, type: 'letter', topic, partition, offset: Number(message.offset), key, value, ...why }
      return void await send('dead-letters', message.key, letter, partition)
    }
    const result = results.get(task.id) ?? await work(task, heartbeat) // a task that comes again is not done again
    remember(results, task.id, result)
    await send('inbox', task.run, result, task.replyPartition) // and only then the task is acknowledged
  }

  const descriptor = { ...agent, type: 'RULE', actions: Object.entries(actions).map(([name, it]) => ({ name, ...it })) }
  const presence = { v: 1, worker, startedAt: Date.now(), intervalMs: 5000, agents: [{ name, version, capacity: 16 }] }
  const present = (sign: object | null) => send('agents', `worker/${worker}`, sign).catch(console.error)
  await Promise.all([admin.connect(), producer.connect(), tasks.connect(), orders.connect()])
  await send('agents', name, { v: 1, name, version, worker, registeredAt: Date.now(), descriptor })
  while (!(await admin.listTopics()).includes(topic)) await sleep(200) // CommandCenter makes it for who is registered
  await admin.disconnect()
  await orders.subscribe({ topic: 'commandcenter.control', fromBeginning: true })
  await orders.run({ autoCommit: false, eachMessage: async ({ message }) => {
    const order: Order = parsed(message.value)
    if (order?.agent !== name) return
    remember(calledOff, order.task, order)
    atWork.get(order.task)?.(order)
  } })
  await tasks.subscribe({ topic, fromBeginning: true })
  await tasks.run({ partitionsConsumedConcurrently: 16, eachMessage: take })
  await present(presence)
  const beats = setInterval(present, presence.intervalMs, presence)
  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, async () => {
    clearInterval(beats)
    await Promise.all([tasks.disconnect(), orders.disconnect()]) // tasks at work are finished
    await present(null)
    await producer.disconnect()
  })
  console.log(`${name} ${version} is served by ${worker}`)
}
