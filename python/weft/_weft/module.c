/* SPDX-License-Identifier: Apache-2.0
 *
 * The module weft._weft.
 */
#include "module.h"

static PyObject *version(PyObject *module, PyObject *nothing)
{
    (void)module, (void)nothing;
    return PyUnicode_FromString(weft_version());
}

static PyObject *size_parse(PyObject *module, PyObject *from)
{
    const char *text = PyUnicode_AsUTF8AndSize(from, NULL);
    uint64_t bytes = 0;
    (void)module;
    if (!text)
        return NULL;
    enum weft_status status = weft_size_parse(text, &bytes);
    return status == WEFT_OK ? PyLong_FromUnsignedLongLong(bytes) : wp_raise(status);
}

static PyMethodDef methods[] = {
    {"connect", WP_KEYWORDS(wp_connect), "Attach to a node."},
    {"version", version, METH_NOARGS, "Of the library inside."},
    {"size_parse", size_parse, METH_O, "'10GB' is 10 x 1024^3."},
    {"_vllm_hashes", wp_vllm_hashes, METH_VARARGS, NULL},
    {"_vllm_root", wp_vllm_root, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "weft._weft",
    .m_doc = "libweft from Python; import weft, not this.",
    .m_size = -1,
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit__weft(void);

PyMODINIT_FUNC PyInit__weft(void)
{
    static int (*const parts[])(PyObject *) = {wp_errors_init,   wp_view_init,   wp_keys_init,
                                               wp_fabric_init,   wp_region_init, wp_format_init,
                                               wp_pins_init,     wp_slots_init,  wp_session_init,
                                               wp_connector_init};
    PyObject *module = PyModule_Create(&definition);
    for (size_t i = 0; module && i < sizeof parts / sizeof parts[0]; i++)
        if (parts[i](module) < 0)
            Py_CLEAR(module);
    if (module && (PyModule_AddIntConstant(module, "BATCH_MAX", WEFT_BATCH_MAX) < 0))
        Py_CLEAR(module);
    return module;
}
