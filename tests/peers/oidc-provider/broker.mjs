// The broker as its own process, with its real configuration file and a file for each secret.

import { execFile, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

const START = 20_000;
const CALL = '5s';

/** JSON's texts are TOML's; tables are written in one line. */
function toml(value) {
  if (typeof value !== 'object') return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map(toml).join(', ')}]`;
  return `{ ${Object.entries(value).map(([key, inner]) => `${JSON.stringify(key)} = ${toml(inner)}`).join(', ')} }`;
}

function section(heading, values) {
  const lines = Object.entries(values).map(([key, value]) => `${key} = ${toml(value)}`);
  return [heading, ...lines, ''].join('\n');
}

export class Broker {
  #program;
  #directory = mkdtempSync(join(tmpdir(), 'token-broker-peer-'));
  #children = [];
  #said = [];
  #endpoint;

  constructor(program) {
    this.#program = program;
    // However this process ends.
    process.on('exit', () => this.stop());
  }

  /** A secret source: a file that holds this. */
  secret(text) {
    const file = `secret-${nextNumber()}`;
    writeFileSync(join(this.#directory, file), text, { mode: 0o600 });
    return { file };
  }

  /** Serves these upstreams and Workspaces (tables by name). */
  async start(upstreams, workspaces) {
    const named = (heading, all) => Object.entries(all).map(([name, values]) => section(heading, { name, ...values }));
    const file = join(this.#directory, 'broker.toml');
    const sections = [
      section('[server]', { grpc_listen: '127.0.0.1:0', probe_listen: '127.0.0.1:0', reload_interval: '0s' }),
      section('[log]', { format: 'json', level: 'info,token_broker=debug' }),
      section('[engine]', { min_gap: '100ms' }),
      ...named('[[upstreams]]', upstreams),
      ...named('[[workspaces]]', workspaces),
      section('[[grants]]', { caller: 'loopback', workspaces: Object.keys(workspaces), actions: ['get', 'watch'] }),
      // Its stdout leads nowhere, and there is no token without a record.
      section('[audit]', { sinks: ['file'], file: 'audit.jsonl' }),
    ];
    writeFileSync(file, sections.join('\n'));
    const child = this.#spawn(['serve', '--config', file], ['ignore', 'ignore', 'pipe']);
    const serving = await this.#until(child, child.stderr, (line) => line.includes('"serving"'));
    this.#endpoint = `http://${JSON.parse(serving).grpc}`;
  }

  /** What `get --json` prints, or what it says instead. */
  get(workspace) {
    const command = ['get', '--json', '--timeout', CALL, '--endpoint', this.#endpoint, workspace];
    return new Promise((resolve) => {
      execFile(this.#program, command, (error, stdout, stderr) => {
        resolve(error ? { refused: stderr.trim() } : JSON.parse(stdout));
      });
    });
  }

  /** The states of a Workspace as they come, for as long as somebody asks for the next one. */
  async *watch(workspace) {
    const command = ['watch', '--json', '--endpoint', this.#endpoint, workspace];
    const child = this.#spawn(command, ['ignore', 'pipe', 'ignore']);
    try {
      for await (const line of createInterface({ input: child.stdout })) yield JSON.parse(line);
    } finally {
      child.kill('SIGKILL');
    }
  }

  /** All lines of the log so far. */
  get log() {
    return this.#said.join('\n');
  }

  stop() {
    for (const child of this.#children.splice(0)) child.kill('SIGKILL');
    rmSync(this.#directory, { recursive: true, force: true });
  }

  #spawn(command, stdio) {
    const child = spawn(this.#program, command, { stdio });
    this.#children.push(child);
    return child;
  }

  /** The first line of which this holds; all lines are kept. */
  #until(child, stream, holds) {
    return new Promise((resolve, reject) => {
      const failed = () => reject(new Error(`the broker does not serve:\n${this.log}`));
      const limit = setTimeout(failed, START);
      child.once('close', failed);
      createInterface({ input: stream }).on('line', (line) => {
        this.#said.push(line);
        if (!holds(line)) return;
        clearTimeout(limit);
        resolve(line);
      });
    });
  }
}

let names = 0;
function nextNumber() {
  names += 1;
  return String(names);
}
