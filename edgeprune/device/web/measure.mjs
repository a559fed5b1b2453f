// SPDX-License-Identifier: Apache-2.0
//
// The measuring program of the "web" devices: the same in Node and in a page. It loads a model with
// onnxruntime-web or LiteRT.js, runs it, and answers with seconds and bytes.
//
// job    {format, runtime, wasm, model, threads, inputs: [{name, type, dims, data}], outputs: bool,
//        warmup, seconds, max_seconds, min_runs}; runtime and model are URLs, wasm (of LiteRT.js)
//        that of a folder; data is base64, little-endian.
// host   {read(url) -> Uint8Array, cpu() -> seconds or null, engine}
// answer {engine, isolated, timer, load, first, times, wall, cpu, memory, outputs}, times in
//        seconds; or {error, refused}, refused where the runtime doesn't take the model.

const TIMER_STEPS = 50;
const CHUNK = 0x8000; // arguments that a call may have in every engine
const KINDS = {
  bool: Uint8Array,
  float16: globalThis.Float16Array ?? Uint16Array,
  float32: Float32Array,
  float64: Float64Array,
  int8: Int8Array,
  int16: Int16Array,
  int32: Int32Array,
  int64: BigInt64Array,
  uint8: Uint8Array,
  uint16: Uint16Array,
  uint32: Uint32Array,
  uint64: BigUint64Array,
};

export async function measure(job, host) {
  const memories = watchMemory();
  let refused = false;
  try {
    const start = performance.now();
    const runtime = await (job.format === 'onnx' ? onnxRuntime : liteRuntime)(job);
    const model = await host.read(job.model);
    refused = true;
    const session = await runtime(model);
    refused = false;
    const load = since(start);
    const measured = await block(session.run, job, host.cpu);
    const outputs = job.outputs ? session.named(await session.run()) : null;
    const memory = [...memories].reduce((sum, each) => sum + each.buffer.byteLength, 0);
    return {
      engine: host.engine,
      isolated: globalThis.crossOriginIsolated ?? null,
      timer: timerStep(),
      load,
      ...measured,
      memory,
      outputs,
    };
  } catch (error) {
    return { error: String(error?.message ?? error), refused };
  }
}

// Each runtime gives a function that loads a model. A run of what that gives takes the inputs from
// JavaScript's memory and leaves the outputs there.

async function onnxRuntime(job) {
  const ort = await import(job.runtime);
  ort.env.wasm.numThreads = job.threads;
  ort.env.logLevel = 'error';
  return async (model) => {
    const session = await ort.InferenceSession.create(model, { executionProviders: ['wasm'] });
    const feeds = {};
    for (const { name, type, dims, data } of job.inputs) {
      feeds[name] = new ort.Tensor(type, array(type, data), dims);
    }
    return {
      run: () => session.run(feeds),
      named: (results) =>
        session.outputNames.map((name) => {
          const { type, dims, data } = results[name];
          return { name, type, dims: [...dims], data: base64(data) };
        }),
    };
  };
}

async function liteRuntime(job) {
  const lite = await import(job.runtime);
  await lite.loadLiteRt(job.wasm, { threads: job.threads > 1 });
  return async (content) => {
    const options = { accelerator: 'wasm', cpuOptions: { numThreads: job.threads } };
    const model = await lite.loadAndCompile(content, options);
    const names = model.getInputDetails().map(({ name }) => name);
    const values = job.inputs.map(({ name, type, dims, data }, index) => {
      const place = names.indexOf(name);
      return { place: place < 0 ? index : place, typed: array(type, data), dims };
    });
    values.sort((one, other) => one.place - other.place);
    const outputs = model.getOutputDetails();
    return {
      run: async () => {
        const tensors = values.map(({ typed, dims }) => new lite.Tensor(typed, dims));
        const results = await model.run(tensors);
        const arrays = results.map((result) => result.toTypedArray());
        for (const each of [...tensors, ...results]) each.delete();
        return arrays;
      },
      named: (arrays) =>
        arrays.map((data, index) => {
          const { name, dtype, shape } = outputs[index];
          return { name, type: dtype, dims: [...shape], data: base64(data) };
        }),
    };
  };
}

// Notes every WebAssembly memory made from now on. A memory never shrinks, so its size at the end
// is the largest that it had.
function watchMemory() {
  const found = new Set();
  const note = (value) => {
    if (value instanceof Memory) found.add(value);
    return value;
  };
  const Memory = WebAssembly.Memory;
  WebAssembly.Memory = new Proxy(Memory, {
    construct: (target, given) => note(Reflect.construct(target, given)),
  });
  for (const name of ['instantiate', 'instantiateStreaming']) {
    const plain = WebAssembly[name];
    WebAssembly[name] = async (...given) => {
      const result = await plain.apply(WebAssembly, given);
      Object.values((result.instance ?? result).exports).forEach(note);
      return result;
    };
  }
  return found;
}

// The first run, a warm-up, and runs until `seconds` and `min_runs` are reached or `max_seconds`
// are over.
async function block(run, job, cpu) {
  const end = performance.now() + 1000 * job.max_seconds;
  let before = performance.now();
  await run();
  const first = since(before);
  const warm = Math.min(performance.now() + 1000 * job.warmup, end);
  while (performance.now() < warm) await run();
  globalThis.gc?.();
  const times = [];
  const spent = cpu();
  const start = performance.now();
  for (;;) {
    before = performance.now();
    await run();
    const now = performance.now();
    times.push((now - before) / 1000);
    if (now > end || (times.length >= job.min_runs && now - start >= 1000 * job.seconds)) break;
  }
  const wall = since(start);
  return { first, times, wall, cpu: spent === null ? null : cpu() - spent };
}

function since(start) {
  return (performance.now() - start) / 1000;
}

function timerStep() {
  let least = Infinity;
  let last = performance.now();
  for (let seen = 0; seen < TIMER_STEPS; ) {
    const now = performance.now();
    if (now > last) {
      least = Math.min(least, now - last);
      last = now;
      seen += 1;
    }
  }
  return least / 1000;
}

function array(type, data) {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  return new KINDS[type](bytes.buffer);
}

function base64(data) {
  const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  let text = '';
  for (let start = 0; start < bytes.length; start += CHUNK) {
    text += String.fromCharCode(...bytes.subarray(start, start + CHUNK));
  }
  return btoa(text);
}
