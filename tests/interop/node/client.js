// A service of Node: finds others, calls them, and is called. client.js NAME PORT EUREKA_PORT deltas|full
'use strict';
const http = require('http');
const { Eureka } = require('eureka-js-client');

const [name, port, eurekaPort, fetch] = process.argv.slice(2);
const client = new Eureka({
  instance: {
    app: name,
    instanceId: `${name}:${port}`,
    hostName: '127.0.0.1',
    ipAddr: '127.0.0.1',
    port: { $: Number(port), '@enabled': true },
    vipAddress: name,
    dataCenterInfo: { '@class': 'com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo', name: 'MyOwn' },
    leaseInfo: { renewalIntervalInSecs: 1, durationInSecs: 10 },
  },
  eureka: {
    host: '127.0.0.1',
    port: Number(eurekaPort),
    servicePath: '/eureka/apps/',
    heartbeatInterval: 1000,
    registryFetchInterval: 1000,
  },
  shouldUseDelta: fetch === 'deltas',
});

const instances = (service) =>
  client
    .getInstancesByVipAddress(service)
    .filter((instance) => instance.status === 'UP')
    .map((instance) => `http://${instance.hostName}:${instance.port.$}`);

const server = http.createServer((request, response) => {
  const [, what, service] = request.url.split('/');
  if (what === 'hello') {
    response.end(`hello from ${name}`);
  } else if (what === 'instances') {
    response.end(JSON.stringify(instances(service)));
  } else {
    const [first] = instances(service);
    const failed = (error) => {
      response.statusCode = 503;
      response.end(String(error));
    };
    if (!first) return failed('no instance');
    http.get(`${first}/hello`, (answer) => answer.pipe(response)).on('error', failed);
  }
});

server.listen(Number(port), '127.0.0.1', () => client.start());
process.on('SIGTERM', () => client.stop(() => process.exit(0)));
