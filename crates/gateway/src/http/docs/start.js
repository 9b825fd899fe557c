"use strict";

// No validator elsewhere is asked, and tokens stay in this tab.
window.addEventListener("load", () => {
  window.ui = SwaggerUIBundle({
    url: "openapi.json",
    dom_id: "#api",
    deepLinking: true,
    displayRequestDuration: true,
    docExpansion: "list",
    persistAuthorization: false,
    presets: [SwaggerUIBundle.presets.apis],
    tryItOutEnabled: false,
    validatorUrl: null,
  });
});
