// An agent in TypeScript. Start it with: npm start

import { failure, serve } from './worker.ts'

const text = { type: 'object', properties: { text: { type: 'string' } }, required: ['text'] }

await serve({
  name: 'text-tools',
  version: '1.0.0',
  description: 'Does small things with texts.',
  actions: {
    title: {
      description: 'Write each word of a text with a capital letter.',
      timeoutMs: 60_000,
      inputSchema: text,
      outputSchema: text,
      async run(inputs, { signal, progress }) {
        if (typeof inputs?.text !== 'string') throw failure('invalid_input', 'text: a string is needed')
        const words: string[] = inputs.text.split(' ')
        for (const [done, word] of words.entries()) {
          signal.throwIfAborted() // the run was cancelled, or the time is over
          progress((100 * done) / words.length, word)
          words[done] = word.charAt(0).toUpperCase() + word.slice(1)
        }
        return { text: words.join(' ') }
      },
    },
  },
})
