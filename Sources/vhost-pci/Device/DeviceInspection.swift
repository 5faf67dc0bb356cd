import HostSystem
import PCI
import Virtio
import VirtioSpec

/// Collects what can be known of a device, and says why the rest cannot.
///
/// A function that the kernel drives is looked at through sysfs alone. One that is handed to user
/// space, served, or emulated, is opened too, which changes nothing but its memory and bus-master
/// enables; a server's device is reset first, as every new client has it.
struct DeviceInspection {
    let target: DeviceTarget
    let tree: HostTree
    let unsafeNoIOMMU: Bool

    func report() throws -> DeviceReport {
        switch target {
        case .emulated, .vfioUser:
            let function = try target.open(unsafeNoIOMMU: unsafeNoIOMMU, in: tree)
            return try report(of: function)
        case .pci(let address):
            return try report(of: try PCIBus.find(address, in: tree))
        }
    }

    // MARK: An emulated function, here or behind a socket

    private func report(of function: any PCIFunction) throws -> DeviceReport {
        let image = try ConfigurationImage(function)
        let sizes = try BARSizes(function)
        let bars = (0..<ConfigurationHeader.baseAddressCount).compactMap { bar in
            sizes[bar].flatMap {
                $0 == 0 ? nil : DeviceReport.BAR(number: bar, size: $0, kind: "memory")
            }
        }
        var report = DeviceReport(
            target: "\(target)",
            identity: Self.identity(image.identity),
            bars: bars,
            capabilities: [],
            notes: []
        )
        add(image, sizes, to: &report)
        add(function, to: &report)
        return report
    }

    // MARK: A function of the machine

    private func report(of record: PCIBus.Record) throws -> DeviceReport {
        var identity = Self.identity(record.identity)
        identity.name = record.name
        identity.className = record.className
        var report = DeviceReport(
            target: "\(target)",
            identity: identity,
            host: Self.host(record),
            bars: record.resources.map(Self.bar),
            capabilities: [],
            notes: []
        )
        let image = try ConfigurationImage(of: record.address, in: tree)
        add(image, BARSizes(record.resources), to: &report)
        notes(on: record, image, to: &report)
        guard record.isVirtio else { return report }
        if let driver = record.driver, DeviceTarget.userDrivers.contains(driver) {
            do {
                add(
                    try target.open(unsafeNoIOMMU: unsafeNoIOMMU, in: tree),
                    to: &report
                )
            } catch {
                let failure = CommandFailure(error)
                report.notes.append(
                    DeviceReport.Note(
                        id: failure.error.id ?? "device/closed",
                        text: "offered features, queues and configuration are not shown:"
                            + " \(failure.error.detail)",
                        remedy: failure.error.remedy
                    )
                )
            }
            return report
        }
        addKernelView(record, to: &report)
        return report
    }

    private func addKernelView(_ record: PCIBus.Record, to report: inout DeviceReport) {
        if let device = record.virtioDevice, let type = report.virtio.map({ DeviceType($0.type) }) {
            report.virtio?.negotiated = Self.features(
                FeatureBits(rawValue: device.negotiatedFeatures),
                type
            )
            report.virtio?.status = device.status.map { "\(DeviceStatus(rawValue: $0))" }
        }
        let holder =
            record.driver.map { "the kernel driver \($0) holds the device" }
            ?? "no driver holds the device"
        report.notes.append(
            DeviceReport.Note(
                id: "device/closed",
                text: "offered features, queues and configuration are not shown: \(holder)",
                remedy: "vhost-pci device bind \(record.address) --driver "
                    + (record.group == nil ? "uio_pci_generic" : "vfio-pci")
            )
        )
    }

    // MARK: Parts

    private func add(
        _ image: ConfigurationImage,
        _ sizes: BARSizes,
        to report: inout DeviceReport
    ) {
        let capabilities = CapabilityReport(image, bars: sizes)
        report.messageVectors = capabilities.messageVectors
        report.capabilities = capabilities.capabilities.map(Self.entry)
        report.notes += capabilities.problems.map { problem in
            let parts = problem.split(separator: ":", maxSplits: 1)
            let isNamed = parts.count == 2 && parts[0].contains("/")
            return DeviceReport.Note(
                id: isNamed ? String(parts[0]) : "pci/configuration",
                text: isNamed ? String(parts[1].dropFirst()) : problem
            )
        }
        guard let identity = image.identity, let number = identity.virtioType else { return }
        let type = DeviceType(number)
        report.virtio = DeviceReport.Virtio(
            type: type.rawValue,
            typeName: "\(type)",
            isTransitional: identity.isTransitionalVirtio
        )
        addVirtioNotes(image, capabilities, to: &report)
    }

    private func addVirtioNotes(
        _ image: ConfigurationImage,
        _ capabilities: CapabilityReport,
        to report: inout DeviceReport
    ) {
        guard !image.isHeaderOnly, !image.isAllOnes else { return }
        for (type, word) in [(VirtioCapabilityType.common, "common"), (.notify, "notification")]
        where !capabilities.virtio(type).contains(where: \.problems.isEmpty) {
            report.notes.append(
                DeviceReport.Note(
                    id: "pci/cap",
                    text: "there is no usable \(word) structure: it has only the interface from"
                        + " before virtio 1.0, or none, and cannot be driven"
                )
            )
        }
        if capabilities.messageVectors == nil {
            report.notes.append(
                DeviceReport.Note(
                    id: "pci/cap",
                    text: "it has no MSI-X: one shared INTx interrupt at most; polling works"
                )
            )
        }
    }

    private func add(_ function: any PCIFunction, to report: inout DeviceReport) {
        do {
            let transport = try PCITransport(function: function)
            let offered = try transport.deviceFeatures()
            report.virtio?.status = "\(try transport.status())"
            report.virtio?.offered = Self.features(offered, transport.deviceType)
            let count = try transport.queueCount()
            report.virtio?.queueCount = count
            report.virtio?.queues = try (0..<count).map { index in
                DeviceReport.Queue(index: index, size: try transport.queueLimit(index))
            }
            if let queues = report.virtio?.queues, queues.allSatisfy({ $0.size == 0 }) {
                report.notes.append(
                    DeviceReport.Note(
                        id: "device/queues",
                        text: "no queue has a size before features are negotiated"
                    )
                )
            }
            if offered.contains(.adminQueue), let range = try transport.adminQueues() {
                report.virtio?.firstAdminQueue = range.lowerBound
                report.virtio?.adminQueueCount = range.count
            }
            report.virtio?.configuration = fields(transport, offered)
        } catch {
            report.notes.append(
                DeviceReport.Note(
                    id: "device/registers",
                    text: "reading registers failed: \(error)"
                )
            )
        }
    }

    // A field past the end of what the device has is left out; so is one without its feature.
    private func fields(
        _ transport: PCITransport,
        _ offered: FeatureBits
    ) -> [DeviceReport.Field] {
        DeviceConfigurationField.fields(of: transport.deviceType).compactMap { field in
            guard field.features.isEmpty || !field.features.isDisjoint(with: offered),
                let bytes = try? transport.readConfiguration(field.offset, field.length)
            else { return nil }
            return DeviceReport.Field(name: field.name, value: field.text(bytes))
        }
    }
}
