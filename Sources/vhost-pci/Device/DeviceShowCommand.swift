import ArgumentParser

/// `vhost-pci device show`.
struct DeviceShowCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "show",
        abstract: "Show what is known of one device.",
        discussion: """
            Identity, IOMMU group, driver, BARs and capabilities of any PCI function. Offered \
            features, queue sizes and the configuration of a virtio device are read from its \
            registers, for which it must be bound to vfio-pci or uio_pci_generic, or be \
            served or `emulated`.
            """
    )

    @Argument(help: "0000:03:00.0, `vfio-user:PATH` or `emulated`.", transform: DeviceTarget.parse)
    var target: DeviceTarget

    @OptionGroup var host: HostOptions
    @OptionGroup var opening: OpenOptions

    func run() throws {
        try CommandFailure.reporting(json: host.json) {
            let report = try DeviceInspection(
                target: target,
                tree: host.tree,
                unsafeNoIOMMU: opening.unsafeNoIOMMU
            ).report()
            if host.json {
                try CommandFailure.print(report)
            } else {
                try CommandFailure.print(lines: DeviceText(report: report).lines)
            }
        }
    }
}
