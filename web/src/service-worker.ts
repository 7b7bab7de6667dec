// Keeps the page for when there is no network. The build fills in the version and the files; what is large the page
// itself puts into the same cache, so that nothing is fetched twice.

interface Extendable extends Event {
  waitUntil(promise: Promise<unknown>): void;
}

interface Fetching extends Extendable {
  request: Request;
  respondWith(response: Promise<Response>): void;
}

const worker = self as unknown as Pick<ServiceWorkerContainer, "addEventListener"> & {
  skipWaiting(): Promise<void>;
  addEventListener<E extends Event>(type: string, listener: (event: E) => void): void;
};
const CACHE = "fkp-__VERSION__", FILES = "__FILES__".split(" ");

worker.addEventListener("install", (event: Extendable) => event.waitUntil((async () => {
  const cache = await caches.open(CACHE);
  await Promise.all(FILES.map(async (file) => {
    if (!(await cache.match(file))) await cache.put(file, await fetch(file, { cache: "no-cache" }));
  }));
  await worker.skipWaiting();
})()));

worker.addEventListener("activate", (event: Extendable) => event.waitUntil((async () => {
  for (const name of await caches.keys()) if (name.startsWith("fkp-") && name !== CACHE) await caches.delete(name);
})()));

worker.addEventListener("fetch", (event: Fetching) => {
  if (event.request.method !== "GET") return;
  event.respondWith((async () => {
    const { pathname } = new URL(event.request.url), isFolder = event.request.mode === "navigate" && pathname.endsWith("/");
    const kept = await caches.match(isFolder ? "index.html" : event.request, { ignoreSearch: isFolder });
    return kept ?? fetch(event.request);
  })());
});
