// Keeps the page for when there is no network. The build fills in the version and the files; what is large the page
// itself puts into the same cache (src/page.ts), so that nothing is fetched twice.

const CACHE = `${registration.scope} __VERSION__`, FILES = "__FILES__".split(" ");

addEventListener("install", (event) => event.waitUntil((async () => {
  const cache = await caches.open(CACHE);
  await Promise.all(FILES.map(async (file) => {
    if (await cache.match(file)) return;
    const response = await fetch(file, { cache: "no-cache" });
    if (!response.ok) throw new Error(`${file} could not be fetched (status ${response.status})`);
    await cache.put(file, response);
  }));
  await skipWaiting();
})()));

// One cache at a time: what an earlier version of the page kept goes.
addEventListener("activate", (event) => event.waitUntil((async () => {
  for (const name of await caches.keys()) if (name.startsWith(`${registration.scope} `) && name !== CACHE) await caches.delete(name);
})()));

addEventListener("fetch", (event) => {
  if (event.request.method !== "GET") return;
  const isFolder = event.request.mode === "navigate" && new URL(event.request.url).pathname.endsWith("/");
  event.respondWith((async () => {
    const cache = await caches.open(CACHE);
    return (await cache.match(isFolder ? "index.html" : event.request)) ?? fetch(event.request);
  })());
});
