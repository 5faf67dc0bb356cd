import ArgumentParser

/// The command line's root.
@main
struct VhostPCI: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "vhost-pci",
        abstract: "User-space virtio devices and drivers."
    )
}
