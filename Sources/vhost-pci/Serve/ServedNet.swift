import PCI

/// A virtio-net device at a vfio-user socket.
final class ServedNet: ServedDevice {
    let settings: DeviceSettings

    init(_ settings: DeviceSettings, _ context: ServeContext) throws {
        self.settings = settings
        throw PCIError.notSupported("a net device at a vfio-user socket")
    }

    var report: ServedDeviceReport { ServedDeviceReport(settings, sockets: []) }

    func close() {}
}
