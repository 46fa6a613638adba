// Addresses are relative, so that the page also works below a path of a proxy.
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#document",
  deepLinking: true,
  displayOperationId: true,
  tryItOutEnabled: false,
  // The badge would send the document's address to another server.
  validatorUrl: null,
});
